"""The scheduler on the wire."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.core.errors import InvalidRequest
from services.core.types import Fingerprint, WorkerId
from services.policies.fairness.clearing import Statement
from services.runtime.interceptors import Context
from services.runtime.wire_reports import report_from_wire, report_to_wire
from services.scheduler.accounts import Accounts
from services.scheduler.fleet import Fleet, Identity, Seat, Worker, wish_for

log = structlog.get_logger()


class SchedulerServicer(rpc.SchedulerServiceServicer):
    def __init__(self, fleet: Fleet, accounts: Accounts) -> None:
        self._fleet = fleet
        self._accounts = accounts

    async def Attach(
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        seat: Seat | None = None
        lease = pb.AttachResponse(lease_milliseconds=int(self._fleet.lease_seconds * 1000))
        try:
            async for request in request_iterator:
                if seat is None:
                    seat = self._join(request)
                else:
                    seat.report(report_from_wire(request.report))
                yield lease
        finally:
            if seat is not None:
                seat.leave()
                log.info("worker_left", worker=seat.worker)

    async def Place(self, request: pb.PlaceRequest, context: Context) -> pb.PlaceResponse:
        chosen = self._fleet.place(
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
        told: tuple[Identity, ...] | None = None
        changed = asyncio.Event()
        with self._fleet.watched(changed.set):
            while True:
                changed.clear()
                now = self._fleet.open()
                if now != told:
                    yield pb.WatchWorkersResponse(workers=[_identity(worker) for worker in now])
                    told = now
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._fleet.lease_seconds / 6):
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
        answer = self._accounts.settle(
            Fingerprint(request.base_fingerprint), statement, request.account
        )
        return pb.SettleResponse(
            house=answer.house,
            number=answer.number,
            counters=answer.counters,
            floor=answer.floor,
        )

    async def ListWorkers(
        self, request: pb.ListWorkersRequest, context: Context
    ) -> pb.ListWorkersResponse:
        return pb.ListWorkersResponse(workers=[_to_wire(w) for w in self._fleet.workers()])

    def _join(self, request: pb.AttachRequest) -> Seat:
        stated = request.identity
        if not (stated.id and stated.address and stated.base_model):
            raise InvalidRequest.of("identity", "the first message names the worker")
        identity = Identity(
            id=WorkerId(stated.id),
            address=stated.address,
            base_model=stated.base_model,
            base_fingerprint=Fingerprint(stated.base_fingerprint),
            device=stated.device,
        )
        seat = self._fleet.join(identity, report_from_wire(request.report))
        log.info("worker_joined", worker=identity.id, address=identity.address)
        return seat


def _to_wire(worker: Worker) -> pb.Worker:
    return pb.Worker(
        identity=_identity(worker.identity),
        report=report_to_wire(worker.report),
        report_age_milliseconds=int(worker.age_seconds * 1000),
    )


def _identity(identity: Identity) -> pb.WorkerIdentity:
    return pb.WorkerIdentity(
        id=identity.id,
        address=identity.address,
        base_model=identity.base_model,
        base_fingerprint=identity.base_fingerprint,
        device=identity.device,
    )
