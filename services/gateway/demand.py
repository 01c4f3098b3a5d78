"""What is wanted here, told to the scheduler: it says how many workers there should be."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import structlog

from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.core.errors import TooLate
from services.core.types import Fingerprint
from services.gateway.course import Course
from services.gateway.fair_queue import FairQueue
from services.gateway.lane import LaneDemand
from services.runtime.client import AWAY, Channels, bearer

log = structlog.get_logger()

SECONDS = 1.0  # from one report to the next


class Punctuality:
    """A Bookkeeper. Which first tokens came within the time that their tier, or they themselves,
    gave them; those that were refused as too late did not."""

    def __init__(self) -> None:
        self._promised: Counter[Fingerprint] = Counter()
        self._kept: Counter[Fingerprint] = Counter()

    @asynccontextmanager
    async def keep(self, course: Course) -> AsyncIterator[None]:
        try:
            yield
        finally:
            job = course.completion.job
            late = course.outcome == TooLate.reason
            if job.first_token_within_ms is not None and (late or course.first_token is not None):
                within = job.first_token_within_ms / 1000
                took = (course.first_token or course.accepted) - course.accepted
                self._promised[job.base_fingerprint] += 1
                self._kept[job.base_fingerprint] += not late and took <= within

    def taken(self, base: Fingerprint) -> float:
        """The share of those that have ended since it was taken last; 1 if there were none."""
        promised, kept = self._promised.pop(base, 0), self._kept.pop(base, 0)
        return kept / promised if promised else 1.0


class DemandReports:
    def __init__(
        self, queue: FairQueue, punctuality: Punctuality, channels: Channels, token: str
    ) -> None:
        self._queue = queue
        self._punctuality = punctuality
        self._channels = channels
        self._token = token
        self._gateway = secrets.token_hex(8)
        self._is_lost = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            for demand in self._queue.demands():
                await self._report(self._request(demand))

    async def _report(self, request: pb.ReportDemandRequest) -> None:
        channel = self._channels.current
        try:
            await rpc.SchedulerServiceStub(channel).ReportDemand(
                request, metadata=bearer(self._token), timeout=2 * SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if not self._is_lost:
                log.warning("demand_not_reported", why=error.details())
            self._is_lost = True
            if error.code() in AWAY:
                self._channels.leave(channel)
        else:
            self._is_lost = False

    def _request(self, demand: LaneDemand) -> pb.ReportDemandRequest:
        return pb.ReportDemandRequest(
            gateway=self._gateway,
            base_fingerprint=demand.base,
            base_model=demand.base_model,
            waiting=sum(demand.waiting.values()),
            longest_wait_seconds=demand.longest_wait,
            in_time=self._punctuality.taken(demand.base),
            arrived={adapter or "": count for adapter, count in demand.arrived.items()},
            waiting_by_adapter={adapter or "": count for adapter, count in demand.waiting.items()},
            debts=[
                pb.TenantDebt(tenant=debt.tenant, owed=debt.owed, requests=debt.requests)
                for debt in demand.debts
            ],
        )
