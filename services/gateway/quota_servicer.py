"""The gateway's gRPC face for limits."""

from dataclasses import asdict

from lorikeet.gateway.v1 import quota_service_pb2 as pb
from lorikeet.gateway.v1 import quota_service_pb2_grpc as rpc
from services.core.errors import InvalidRequest
from services.gateway.limits import LimitBook
from services.policies.quotas import Account, Limits
from services.runtime import call
from services.runtime.interceptors import Context

_NAMES = frozenset(asdict(Limits()))


class QuotaServicer(rpc.QuotaServiceServicer):
    def __init__(self, limits: LimitBook) -> None:
        self._limits = limits

    async def SetLimits(
        self, request: pb.SetLimitsRequest, context: Context
    ) -> pb.SetLimitsResponse:
        tenant = call.current().caller.acting_for(request.tenant)
        account = await self._limits.change(tenant, request.key_id, _changes(request))
        return pb.SetLimitsResponse(quota=_quota(tenant, request.key_id, account))

    async def GetLimits(
        self, request: pb.GetLimitsRequest, context: Context
    ) -> pb.GetLimitsResponse:
        tenant = call.current().caller.acting_for(request.tenant)
        account = await self._limits.quota(tenant, request.key_id)
        return pb.GetLimitsResponse(quota=_quota(tenant, request.key_id, account))


def _changes(request: pb.SetLimitsRequest) -> dict[str, int | None]:
    given = {field.name: value for field, value in request.limits.ListFields()}
    paths = request.update_mask.paths or given
    if unknown := sorted(set(paths) - _NAMES):
        raise InvalidRequest.of("update_mask", f"{unknown[0]!r} is no limit")
    return {name: given.get(name) for name in paths}


def _quota(tenant: str, key: str, account: Account) -> pb.Quota:
    use = account.use
    return pb.Quota(
        tenant=tenant,
        key_id=key,
        limits=pb.Limits(**asdict(account.limits)),
        usage=pb.Usage(
            requests_in_minute=sum(second.requests for second in use.window),
            tokens_in_minute=use.running.tokens + sum(second.tokens for second in use.window),
            running_requests=use.running.requests,
            reserved_tokens=use.running.tokens,
            tokens_in_month=use.month_tokens,
            tokens_in_total=use.total_tokens,
        ),
    )
