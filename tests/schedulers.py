"""Schedulers in this process, over real gRPC and a real database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as fleet_rpc
from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.core.clock import Clock
from services.core.reports import Orders, WorkerReport
from services.runtime.access import FLEET, SCHEDULER, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.beside import beside
from services.runtime.client import bearer
from services.runtime.clock import SystemClock
from services.runtime.db import Sessions
from services.runtime.server import Server
from services.scheduler.accounts import Accounts
from services.scheduler.control import Control, Rules
from services.scheduler.demand import Demands
from services.scheduler.fleet import Fleet
from services.scheduler.fleet_servicer import FleetServicer
from services.scheduler.loop import Loop, Planner
from services.scheduler.office import Office, Reign
from services.scheduler.operations import Operations
from services.scheduler.repository import SqlMigrations, SqlTerms, SqlWishes
from services.scheduler.servicer import SchedulerServicer
from services.scheduler.spread import Spread
from services.scheduler.wishes import Wishes
from tests.drains import Drains

TOKEN = "t" * 40
OPERATOR = bearer(TOKEN)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  # the state is plain data
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(office: Office, address: str) -> AsyncIterator[None]:
    """Whoever holds the office, on the wire."""
    gate = Gate(ServiceToken(TOKEN), scopes_of(SCHEDULER) | scopes_of(FLEET))
    server = Server(address=address, gate=gate, services=[SCHEDULER, FLEET])
    rpc.add_SchedulerServiceServicer_to_server(SchedulerServicer(office), server.grpc)
    fleet_rpc.add_FleetServiceServicer_to_server(FleetServicer(office), server.grpc)
    await server.start()
    try:
        yield
    finally:
        await server.drain(0)


def reign_of(
    sessions: Sessions,
    term: int,
    *,
    clock: Clock,
    wishes: Wishes | None = None,
    lease_seconds: float = 1.0,
    gateway_lease_seconds: float = 10.0,
    rules: Rules | None = None,
    planner: Planner | None = None,
) -> Reign:
    sql, migrations = SqlWishes(sessions, term), SqlMigrations(sessions, term)
    fleet = Fleet(clock, lease_seconds=lease_seconds, wishes=wishes)
    control = Control(rules or Rules(drain_seconds=0.1), term=term, now=clock.now())
    demands = Demands(clock, lease_seconds=gateway_lease_seconds)
    loop = Loop(fleet, control, planner or Drains(), migrations, sql, debts=demands.debts)
    spread = Spread(fleet, clock)
    return Reign(
        term=term,
        fleet=fleet,
        accounts=Accounts(clock, lease_seconds=gateway_lease_seconds),
        demands=demands,
        spread=spread,
        loop=loop,
        operations=Operations(fleet, sql, loop, spread),
        migrations=migrations,
    )


@asynccontextmanager
async def leading(sessions: Sessions, address: str, **more: Any) -> AsyncIterator[Reign]:
    """One that leads from the beginning, for the next term, until the block ends."""
    clock = SystemClock()
    term = await SqlTerms(sessions).take_over("here")
    wishes = await SqlWishes(sessions, term).read()
    reign = reign_of(sessions, term, clock=clock, wishes=wishes, **more)
    office = Office(clock)
    async with serving(office, address), beside(reign.loop.run()):
        with office.held(reign, float("inf")):
            yield reign


class Attending:
    """An Attendance of nothing but the terms that are heard."""

    leaves = False

    def __init__(self, heard: list[int]) -> None:
        self._heard = heard
        self.is_sent_away = asyncio.Event()

    def begin(self) -> None: ...

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def report(self) -> WorkerReport:
        return WorkerReport()

    def obey(self, orders: Orders) -> None:
        self._heard.append(orders.term)


@dataclass(slots=True)
class FakeWorker:
    """Attached over a real socket; it says what it is told to hold, and does what it is told."""

    id: str
    address: str = "127.0.0.1:1"
    sequences: dict[str, int] = field(default_factory=dict)  # tokens, by request
    draining: bool = False
    pinned: list[str] = field(default_factory=list)
    is_full: bool = False  # for whatever is pinned
    preloaded: list[str] = field(default_factory=list)
    moved: list[tuple[str, str]] = field(default_factory=list)  # request and target
    ending: set[str] = field(default_factory=set)  # requests that have ended when they are to move
    term: int = 0
    lost: str = ""  # why its call ended
    _outcomes: list[pb.MoveOutcome] = field(default_factory=list)
    _tells: bool = False

    async def attached(self, channel: grpc.aio.Channel, seconds: float = 0.05) -> None:
        """Until cancelled, or until the scheduler ends it; a report each so many seconds."""
        answers: asyncio.Queue[None] = asyncio.Queue()

        async def reports() -> AsyncIterator[pb.AttachRequest]:
            identity = pb.WorkerIdentity(
                id=self.id, address=self.address, base_model="base", base_fingerprint="f" * 64
            )
            yield pb.AttachRequest(identity=identity, report=self._report())
            while True:
                await answers.get()
                await asyncio.sleep(seconds)
                yield pb.AttachRequest(report=self._report())

        try:
            stub = rpc.SchedulerServiceStub(channel)
            async for response in stub.Attach(reports(), metadata=OPERATOR):
                self._obey(response)
                answers.put_nowait(None)
        except grpc.aio.AioRpcError as error:
            self.lost = error.details() or error.code().name

    def _report(self) -> pb.WorkerReport:
        report = pb.WorkerReport(
            running_sequences=len(self.sequences),
            total_pages=100,
            free_pages=100 - len(self.sequences),
            page_tokens=16,
            most_sequences=8,
            draining=self.draining,
            resident_adapters=[] if self.is_full else self.pinned,
            pins_without_room=self.pinned if self.is_full else [],
            moved=self._outcomes,
        )
        self._outcomes = []
        if self._tells:
            self._tells = False
            report.sequences.SetInParent()
            for request, tokens in self.sequences.items():
                report.sequences.sequences.add(request_id=request, tokens=tokens, tokens_left=5)
        return report

    def _obey(self, response: pb.AttachResponse) -> None:
        self.term = response.term
        self.draining = response.desired.draining
        self.pinned = list(response.desired.pinned_adapters)
        for order in response.orders:
            if order.HasField("move"):
                self._move(order.move)
            elif order.preload:
                self.preloaded.append(order.preload)
            else:
                self._tells = True

    def _move(self, move: pb.Move) -> None:
        for request in move.request_ids:
            tokens = self.sequences.pop(request, None)
            if request in self.ending:
                tokens = None
            kind = pb.MOVE_OUTCOME_KIND_GONE if tokens is None else pb.MOVE_OUTCOME_KIND_LEFT
            self.moved.append((request, move.target_worker_id))
            self._outcomes.append(
                pb.MoveOutcome(move_id=move.id, request_id=request, kind=kind, tokens=tokens or 0)
            )
