"""Who may call what: every method of the suite, in one table. What it does not name is refused."""

from collections.abc import Mapping, Sequence

from services.runtime.auth import Scope

GATEWAY = "lorikeet.gateway.v1.GatewayService"
TENANTS = "lorikeet.gateway.v1.TenantService"
ADAPTER_STORE = "lorikeet.adapter_store.v1.AdapterStoreService"
ADAPTER_LIFECYCLE = "lorikeet.adapter_store.v1.AdapterLifecycleService"
SCHEDULER = "lorikeet.scheduler.v1.SchedulerService"
GPU_WORKER = "lorikeet.gpu_worker.v1.GpuWorkerService"
INFERENCE = "inference.GRPCInferenceService"

_PUBLIC_METHODS = {INFERENCE: ("ServerLive", "ServerReady")}
_TENANT_METHODS = {
    GATEWAY: ("Generate", "ListModels"),
    INFERENCE: ("ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer"),
    ADAPTER_STORE: (
        "StartUpload",
        "WriteChunks",
        "GetUpload",
        "FinishUpload",
        "ResolveAdapter",
        "ListAdapters",
        "GetAdapter",
        "GetVersion",
        "ListVersions",
        "Download",
        "ListBaseModels",
    ),
    ADAPTER_LIFECYCLE: (
        "SetAlias",
        "Promote",
        "Rollback",
        "SetCanary",
        "DeleteAlias",
        "ListAliases",
        "ListAliasHistory",
        "ShareAdapter",
        "UnshareAdapter",
        "ListShares",
        "DeleteVersion",
        "UndeleteVersion",
        "DeleteAdapter",
        "UndeleteAdapter",
        "VerifyVersion",
        "Watch",
    ),
}
_OPERATOR_METHODS = {
    TENANTS: ("CreateTenant", "ListTenants", "CreateKey", "ListKeys", "RevokeKey"),
    ADAPTER_STORE: ("RegisterBaseModel", "GetBaseModel"),
    ADAPTER_LIFECYCLE: ("CollectGarbage",),
    SCHEDULER: ("Attach", "Place", "ListWorkers"),
    GPU_WORKER: ("Run",),
}


def scopes_of(service: str) -> dict[str, Scope]:
    """By full method name ("/package.Service/Method")."""
    return (
        _named(service, _PUBLIC_METHODS, Scope.PUBLIC)
        | _named(service, _TENANT_METHODS, Scope.TENANT)
        | _named(service, _OPERATOR_METHODS, Scope.OPERATOR)
    )


def _named(service: str, methods: Mapping[str, Sequence[str]], scope: Scope) -> dict[str, Scope]:
    return {f"/{service}/{method}": scope for method in methods.get(service, ())}


ENDLESS = frozenset({f"/{ADAPTER_LIFECYCLE}/Watch"})
"""Calls that a server ends when it stops, because they never would."""

PROXIED = {
    ADAPTER_STORE: _named(ADAPTER_STORE, _TENANT_METHODS, Scope.TENANT),
    ADAPTER_LIFECYCLE: scopes_of(ADAPTER_LIFECYCLE),
    SCHEDULER: {f"/{SCHEDULER}/ListWorkers": Scope.OPERATOR},
}
"""What the gateway passes on to the services behind it."""
