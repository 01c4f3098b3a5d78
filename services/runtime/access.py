"""Who may call what: every method of the suite, in one table. What it does not name is refused."""

from services.runtime.auth import Scope

GATEWAY = "lorikeet.gateway.v1.GatewayService"
QUEUE = "lorikeet.gateway.v1.QueueService"
TENANTS = "lorikeet.gateway.v1.TenantService"
QUOTAS = "lorikeet.gateway.v1.QuotaService"
USAGE = "lorikeet.gateway.v1.UsageService"
ADAPTER_STORE = "lorikeet.adapter_store.v1.AdapterStoreService"
ADAPTER_LIFECYCLE = "lorikeet.adapter_store.v1.AdapterLifecycleService"
SCHEDULER = "lorikeet.scheduler.v1.SchedulerService"
FLEET = "lorikeet.scheduler.v1.FleetService"
GPU_WORKER = "lorikeet.gpu_worker.v1.GpuWorkerService"
TRAINER = "lorikeet.trainer.v1.TrainerService"
INFERENCE = "inference.GRPCInferenceService"

_METHODS: dict[str, dict[Scope, tuple[str, ...]]] = {
    GATEWAY: {Scope.GENERATE: ("Generate",), Scope.TENANT: ("ListModels",)},
    INFERENCE: {
        Scope.PUBLIC: ("ServerLive", "ServerReady"),
        Scope.TENANT: ("ServerMetadata", "ModelReady", "ModelMetadata"),
        Scope.GENERATE: ("ModelInfer",),
    },
    TENANTS: {
        Scope.OPERATOR: (
            "CreateTenant",
            "UpdateTenant",
            "ListTenants",
            "CreateOrganisation",
            "UpdateOrganisation",
            "ListOrganisations",
            "CreateKey",
            "ListKeys",
            "RevokeKey",
            "RotateKey",
        )
    },
    QUEUE: {Scope.OPERATOR: ("WatchQueue",)},
    USAGE: {Scope.TENANT: ("GetUsage", "ListRequests", "Explain")},
    QUOTAS: {Scope.TENANT: ("GetLimits",), Scope.OPERATOR: ("SetLimits",)},
    ADAPTER_STORE: {
        Scope.ADAPTERS_READ: (
            "ResolveAdapter",
            "ListAdapters",
            "GetAdapter",
            "GetVersion",
            "ListVersions",
            "Download",
            "ListBaseModels",
        ),
        Scope.ADAPTERS_WRITE: (
            "StartUpload",
            "WriteChunks",
            "StageUpload",
            "GetUpload",
            "FinishUpload",
        ),
        Scope.OPERATOR: ("RegisterBaseModel", "GetBaseModel"),
    },
    ADAPTER_LIFECYCLE: {
        Scope.ADAPTERS_READ: (
            "ListAliases",
            "ListAliasHistory",
            "ListShares",
            "VerifyVersion",
            "Watch",
        ),
        Scope.ADAPTERS_WRITE: (
            "SetAlias",
            "Promote",
            "Rollback",
            "SetCanary",
            "DeleteAlias",
            "ShareAdapter",
            "UnshareAdapter",
            "DeleteVersion",
            "UndeleteVersion",
            "DeleteAdapter",
            "UndeleteAdapter",
        ),
        Scope.OPERATOR: ("CollectGarbage",),
    },
    SCHEDULER: {
        Scope.OPERATOR: (
            "Attach",
            "Place",
            "WatchWorkers",
            "Settle",
            "ReportDemand",
            "ListWorkers",
        )
    },
    FLEET: {
        Scope.OPERATOR: (
            "SetWorker",
            "ExplainPlacement",
            "PinAdapter",
            "ListPins",
            "PreloadAdapter",
            "Rebalance",
            "ListMigrations",
        )
    },
    GPU_WORKER: {Scope.OPERATOR: ("Run", "ReadPrefix")},
    TRAINER: {
        Scope.ADAPTERS_READ: ("GetJob", "ListJobs", "WatchJob"),
        Scope.ADAPTERS_WRITE: ("WriteData", "CreateJob", "CancelJob"),
    },
}


def scopes_of(service: str) -> dict[str, Scope]:
    """By full method name ("/package.Service/Method")."""
    return {
        f"/{service}/{method}": scope
        for scope, methods in _METHODS[service].items()
        for method in methods
    }


ENDLESS = frozenset(
    {
        f"/{ADAPTER_LIFECYCLE}/Watch",
        f"/{SCHEDULER}/WatchWorkers",
        f"/{QUEUE}/WatchQueue",
        f"/{TRAINER}/WatchJob",
    }
)
"""Calls that a server ends when it stops, because they never would."""

PROXIED: dict[str, dict[str, Scope]] = {
    ADAPTER_STORE: {
        method: scope
        for method, scope in scopes_of(ADAPTER_STORE).items()
        if scope is not Scope.OPERATOR
    },
    ADAPTER_LIFECYCLE: scopes_of(ADAPTER_LIFECYCLE),
    SCHEDULER: {f"/{SCHEDULER}/ListWorkers": Scope.OPERATOR},
    FLEET: scopes_of(FLEET),
    TRAINER: scopes_of(TRAINER),
}
"""What the gateway passes on to the services behind it."""
