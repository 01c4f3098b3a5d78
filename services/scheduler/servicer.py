"""The scheduler on the wire."""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import structlog

from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.core.errors import InvalidRequest
from services.core.reports import MoveOrder, Orders
from services.core.types import Digest, Fingerprint
from services.policies.fairness.clearing import Statement
from services.runtime.interceptors import Context
from services.runtime.wire_reports import orders_to_wire, report_from_wire
from services.scheduler.fleet import Seat, wish_for
from services.scheduler.office import Office, Reign
from services.scheduler.orders import Preload, TellSequences
from services.scheduler.wire import (
    demand_from_wire,
    identity_from_wire,
    identity_to_wire,
    worker_to_wire,
)
from services.scheduler.wishes import WorkerWish
from services.scheduler.worker import Identity

log = structlog.get_logger()

PAUSE_SECONDS = 0.05  # from one list of workers to the next: many may join at once


class SchedulerServicer(rpc.SchedulerServiceServicer):
    def __init__(self, office: Office) -> None:
        self._office = office

    async def Attach(
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        reign, reports = self._office.reign(), aiter(request_iterator)
        first = await anext(reports, None)
        if first is None:
            return
        self._office.require(reign)
        report = report_from_wire(first.report)
        seat = reign.fleet.join(identity_from_wire(first.identity), report)
        log.info("worker_joined", worker=seat.worker, address=first.identity.address)
        try:
            reign.loop.reported(seat.worker, report)
            async with aclosing(self._turns(reign, seat, reports)) as turns:
                async for _ in turns:
                    yield _answer(reign, seat)
            seat.leave()
            await self._written(reign, seat)
        finally:
            seat.leave()
            log.info("worker_left", worker=seat.worker)

    async def _written(self, reign: Reign, seat: Seat) -> None:
        """SQL says that it has drained, if it has: it ends its process when this call ends well."""
        reign.loop.wake()
        while seat.worker in reign.fleet.drained:
            self._office.require(reign)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _turns(
        self, reign: Reign, seat: Seat, reports: AsyncIterator[pb.AttachRequest]
    ) -> AsyncGenerator[None]:
        """When to answer: after reports, and when there are orders; until the last report."""
        woken = asyncio.Event()
        seat.on_order(woken.set)
        hearing = asyncio.create_task(self._hear(reign, seat, reports, woken))
        hearing.add_done_callback(lambda _: woken.set())
        try:
            yield
            while not hearing.done():
                await woken.wait()
                woken.clear()
                self._office.require(reign)
                yield
            await hearing
        finally:
            hearing.cancel()

    async def _hear(
        self,
        reign: Reign,
        seat: Seat,
        reports: AsyncIterator[pb.AttachRequest],
        heard: asyncio.Event,
    ) -> None:
        async for request in reports:
            self._office.require(reign)
            report = report_from_wire(request.report)
            seat.report(report)
            reign.loop.reported(seat.worker, report)
            heard.set()

    async def Place(self, request: pb.PlaceRequest, context: Context) -> pb.PlaceResponse:
        chosen = self._office.reign().fleet.place(
            wish_for(
                request.base_model,
                request.base_fingerprint,
                request.adapter_digest,
                request.excluded_workers,
            )
        )
        return pb.PlaceResponse(worker_id=chosen.id, address=chosen.address)

    async def WatchWorkers(
        self, request: pb.WatchWorkersRequest, context: Context
    ) -> AsyncIterator[pb.WatchWorkersResponse]:
        reign = self._office.reign()
        fleet = reign.fleet
        told: tuple[Identity, ...] | None = None
        told_homes: dict[Digest, int] = {}
        told_at = -math.inf
        changed = asyncio.Event()
        with fleet.watched(changed.set):
            while True:
                changed.clear()
                self._office.require(reign)
                now, homes = fleet.open(), reign.spread.counts()
                is_news = now != told or homes != told_homes
                if is_news or fleet.now() - told_at >= fleet.lease_seconds:
                    response = pb.WatchWorkersResponse(term=reign.term)
                    response.workers.extend(identity_to_wire(worker) for worker in now)
                    if homes != told_homes:
                        response.homes.SetInParent()
                        response.homes.counts.update({str(a): n for a, n in homes.items()})
                    yield response
                    told, told_homes, told_at = now, homes, fleet.now()
                    await asyncio.sleep(PAUSE_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(fleet.lease_seconds / 6):
                        await changed.wait()

    async def Settle(self, request: pb.SettleRequest, context: Context) -> pb.SettleResponse:
        if not (request.gateway and request.number and request.base_fingerprint):
            raise InvalidRequest.of("gateway", "name the base model, the gateway and the statement")
        statement = Statement(
            gateway=request.gateway,
            number=request.number,
            bases=dict(request.bases),
            charged=dict(request.charged),
            active=frozenset(request.active),
            floor=request.floor if request.HasField("floor") else None,
        )
        answer = self._office.reign().accounts.settle(
            Fingerprint(request.base_fingerprint), statement, request.account
        )
        return pb.SettleResponse(
            house=answer.house,
            number=answer.number,
            counters=answer.counters,
            floor=answer.floor,
        )

    async def ReportDemand(
        self, request: pb.ReportDemandRequest, context: Context
    ) -> pb.ReportDemandResponse:
        demand = demand_from_wire(request)
        base = Fingerprint(request.base_fingerprint)
        reign = self._office.reign()
        reign.demands.say(base, request.gateway, demand)
        reign.spread.arrived(base, demand.arrived or {})
        return pb.ReportDemandResponse()

    async def ListWorkers(
        self, request: pb.ListWorkersRequest, context: Context
    ) -> pb.ListWorkersResponse:
        workers = self._office.reign().fleet.workers()
        return pb.ListWorkersResponse(workers=[worker_to_wire(worker) for worker in workers])


def _answer(reign: Reign, seat: Seat) -> pb.AttachResponse:
    fleet, told = reign.fleet, seat.orders()
    orders = Orders(
        term=reign.term,
        draining=fleet.wishes.workers.get(seat.worker) is WorkerWish.DRAIN,
        pinned=frozenset(fleet.kept_adapters(seat.worker)),
        moves=tuple(order for order in told if isinstance(order, MoveOrder)),
        preloads=tuple(order.adapter for order in told if isinstance(order, Preload)),
        tell_sequences=TellSequences() in told,
        takes_changes=True,
    )
    return orders_to_wire(orders, lease_milliseconds=int(fleet.lease_seconds * 1000))
