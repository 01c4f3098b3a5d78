"""The queue on the wire, for operators."""

import asyncio
from collections.abc import AsyncIterator

from lorikeet.gateway.v1 import queue_service_pb2 as pb
from lorikeet.gateway.v1 import queue_service_pb2_grpc as rpc
from services.core.errors import InvalidRequest
from services.gateway.fairness import QueueReports, TierReport
from services.runtime.interceptors import Context
from services.runtime.wire import tier_to_wire

MOST_TENANTS = 100
LEAST_MILLISECONDS, USUAL_MILLISECONDS = 100, 1000


class QueueServicer(rpc.QueueServiceServicer):
    def __init__(self, reports: QueueReports) -> None:
        self._reports = reports

    async def WatchQueue(
        self, request: pb.WatchQueueRequest, context: Context
    ) -> AsyncIterator[pb.WatchQueueResponse]:
        interval = request.interval_milliseconds or USUAL_MILLISECONDS
        if interval < LEAST_MILLISECONDS:
            raise InvalidRequest.of("interval_milliseconds", f"at least {LEAST_MILLISECONDS}")
        while True:
            yield pb.WatchQueueResponse(lanes=[_lane(report) for report in self._reports.look()])
            if request.once:
                return
            await asyncio.sleep(interval / 1000)


def _lane(report: TierReport) -> pb.Lane:
    view, fairness = report.view, report.fairness
    return pb.Lane(
        base_model=view.base_model,
        policy=report.policy,
        tier=tier_to_wire(report.tier),
        workers=view.workers,
        tenants=[
            pb.QueuedTenant(
                tenant=standing.tenant,
                waiting=standing.waiting,
                running=standing.running,
                longest_wait_milliseconds=int(standing.longest_wait * 1000),
                service=fairness.service.get(standing.tenant, 0.0),
            )
            for standing in report.standings[:MOST_TENANTS]
        ],
        gap=fairness.gap,
        bound=report.bound,
        jain_index=fairness.indices.jain,
        dispersion=fairness.indices.dispersion,
        too_late=report.too_late.most(MOST_TENANTS),
    )
