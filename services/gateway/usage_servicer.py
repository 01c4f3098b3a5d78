"""The gateway's gRPC face for those who look at what was used."""

from google.protobuf.timestamp_pb2 import Timestamp

from lorikeet.gateway.v1 import usage_service_pb2 as pb
from lorikeet.gateway.v1 import usage_service_pb2_grpc as rpc
from services.core.errors import InvalidRequest
from services.core.types import Tier
from services.gateway.records import Record
from services.gateway.usage import Dimension, Filter, Sum, Usage, explanation
from services.runtime import call
from services.runtime.interceptors import Context
from services.runtime.paging import Page
from services.runtime.wire import tier_to_wire

_DIMENSIONS = {
    pb.USAGE_DIMENSION_TENANT: Dimension.TENANT,
    pb.USAGE_DIMENSION_KEY: Dimension.KEY,
    pb.USAGE_DIMENSION_ADAPTER: Dimension.ADAPTER,
    pb.USAGE_DIMENSION_MODEL: Dimension.MODEL,
    pb.USAGE_DIMENSION_HOUR: Dimension.HOUR,
    pb.USAGE_DIMENSION_DAY: Dimension.DAY,
    pb.USAGE_DIMENSION_TIER: Dimension.TIER,
}
_NEWEST_FIRST = {
    pb.REQUEST_ORDER_UNSPECIFIED: True,
    pb.REQUEST_ORDER_NEWEST_FIRST: True,
    pb.REQUEST_ORDER_OLDEST_FIRST: False,
}
_LAST_SECOND = 253_402_300_799  # of the year 9999


class UsageServicer(rpc.UsageServiceServicer):
    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        if not set(request.group_by) <= set(_DIMENSIONS):
            raise InvalidRequest.of("group_by", "not a dimension")
        by = [_DIMENSIONS[dimension] for dimension in request.group_by]
        sums = await self._usage.sums(call.current().caller, _filter(request.filter), by)
        return pb.GetUsageResponse(sums=[_sum(each) for each in sums])

    async def ListRequests(
        self, request: pb.ListRequestsRequest, context: Context
    ) -> pb.ListRequestsResponse:
        if request.order not in _NEWEST_FIRST:
            raise InvalidRequest.of("order", "not an order")
        records, following = await self._usage.requests(
            call.current().caller,
            _filter(request.filter, ended_only=request.ended_only),
            Page.asked(request.page_size, request.page_token),
            newest_first=_NEWEST_FIRST[request.order],
        )
        return pb.ListRequestsResponse(
            requests=[_record(record) for record in records], next_page_token=following
        )

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        records = await self._usage.explain(
            call.current().caller, request.tenant, request.request_id
        )
        return pb.ExplainResponse(
            explanations=[
                pb.Explanation(request=_record(record), sentences=explanation(record))
                for record in records
            ]
        )


def _filter(asked: pb.UsageFilter, *, ended_only: bool = False) -> Filter:
    return Filter(
        tenant=asked.tenant,
        key=asked.key,
        adapter=asked.adapter_digest,
        model=asked.model,
        since_us=_microseconds("start_time", asked),
        until_us=_microseconds("end_time", asked),
        ended_only=ended_only,
    )


def _microseconds(field: str, asked: pb.UsageFilter) -> int | None:
    if not asked.HasField(field):  # type: ignore[arg-type]
        return None
    stamp: Timestamp = getattr(asked, field)
    if not (-_LAST_SECOND <= stamp.seconds <= _LAST_SECOND and 0 <= stamp.nanos < 1_000_000_000):
        raise InvalidRequest.of(f"filter.{field}", "not a time")
    return stamp.seconds * 1_000_000 + stamp.nanos // 1000


def _sum(each: Sum) -> pb.UsageSum:
    return pb.UsageSum(
        tenant=each.tenant,
        key=each.key,
        adapter_digest=each.adapter,
        model=each.model,
        start_time=None if each.start_us is None else _time(each.start_us),
        requests=each.requests,
        prompt_tokens=each.prompt_tokens,
        cached_tokens=each.cached_tokens,
        completion_tokens=each.completion_tokens,
        charge=each.charge,
        tier=tier_to_wire(Tier(each.tier) if each.tier else None),
    )


def _record(record: Record) -> pb.RequestRecord:
    return pb.RequestRecord(
        id=record.id,
        asked_id=record.asked_id,
        tenant=record.tenant,
        key=record.key,
        adapter_digest=record.adapter,
        model=record.model,
        base_model=record.base_model,
        worker=record.worker,
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        completion_tokens=record.completion_tokens,
        accept_time=_time(record.accepted_us),
        queue_us=record.queue_us,
        first_token_us=record.first_token_us,
        total_us=record.total_us,
        outcome=record.outcome or "",
        charge=record.charge,
        cost=record.cost,
        tier=tier_to_wire(Tier(record.tier)),
    )


def _time(microseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(microseconds)
    return stamp
