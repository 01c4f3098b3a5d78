"""Runs the scheduler."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as fleet_rpc
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.core.clock import Clock
from services.policies.migration.rounds import Mover
from services.runtime import telemetry
from services.runtime.access import FLEET, SCHEDULER, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.beside import beside
from services.runtime.clock import SystemClock
from services.runtime.db import Sessions, close_sessions, open_sessions
from services.runtime.metrics import exported
from services.runtime.migrate import require_current
from services.runtime.server import Server, run, stop_signal
from services.runtime.settings import load
from services.scheduler.accounts import Accounts
from services.scheduler.control import Control
from services.scheduler.control import Rules as MoveRules
from services.scheduler.demand import Demands
from services.scheduler.figures import figures
from services.scheduler.fleet import Fleet
from services.scheduler.fleet_servicer import FleetServicer
from services.scheduler.lock import open_lock
from services.scheduler.loop import Keeping, Loop
from services.scheduler.metrics import FleetMetrics
from services.scheduler.office import Election, Office, Reign
from services.scheduler.operations import Operations
from services.scheduler.repository import SqlMigrations, SqlTerms, SqlWishes
from services.scheduler.servicer import SchedulerServicer
from services.scheduler.settings import SchedulerSettings
from services.scheduler.spread import Spread

FIGURES_SECONDS = 1.0
PRELOAD_SECONDS = 30
AT_ONCE = 1000  # adapters that are looked at


async def main() -> None:
    settings = load(SchedulerSettings)
    telemetry.setup("scheduler", log_format=settings.log_format, level=settings.log_level)
    await require_current(settings.database_url)
    sessions, clock = open_sessions(settings.database_url), SystemClock()
    office, metrics = Office(clock), FleetMetrics()
    server = _server(settings, office)
    election = Election(
        open_lock(settings.database_url, seconds=settings.leader_seconds),
        SqlTerms(sessions),
        office,
        _reigning(settings, sessions, clock, server, metrics),
        clock=clock,
        holder=f"{socket.gethostname()}/{os.getpid()}",
    )
    stopped = stop_signal()
    await server.start()
    async with exported(metrics, settings.metrics_address):
        async with beside(election.run()):
            await stopped.wait()
        await server.drain(min(settings.drain_seconds, 2.0))
    await close_sessions(sessions)


def _server(settings: SchedulerSettings, office: Office) -> Server:
    token = ServiceToken(settings.service_token.get_secret_value())
    server = Server(
        address=settings.address,
        gate=Gate(token, scopes_of(SCHEDULER) | scopes_of(FLEET)),
        services=[SCHEDULER, FLEET],
        serves_at_once=False,
    )
    rpc.add_SchedulerServiceServicer_to_server(SchedulerServicer(office), server.grpc)
    fleet_rpc.add_FleetServiceServicer_to_server(FleetServicer(office), server.grpc)
    return server


def _reigning(
    settings: SchedulerSettings,
    sessions: Sessions,
    clock: Clock,
    server: Server,
    metrics: FleetMetrics,
) -> Callable[[int], AbstractAsyncContextManager[Reign]]:
    @asynccontextmanager
    async def reigning(term: int) -> AsyncIterator[Reign]:
        """The server says that it serves for as long."""
        reign = await _reign(settings, sessions, clock, term)

        async def publish() -> None:
            while True:
                known = figures(reign.fleet.workers(), reign.demands, settings.scaling)
                metrics.leads(term, known)
                await asyncio.sleep(FIGURES_SECONDS)

        async with beside(reign.loop.run(), publish(), _spread(reign.spread)):
            await server.tell(serving=True)
            try:
                yield reign
            finally:
                await server.tell(serving=False)
        metrics.stands_by()

    return reigning


async def _spread(spread: Spread) -> None:
    """Until cancelled."""
    while True:
        for _ in range(PRELOAD_SECONDS):
            await asyncio.sleep(1.0)
            spread.settle()
        expected = []
        for each in spread.expected():
            expected.append(each)
            if len(expected) % AT_ONCE == 0:
                await asyncio.sleep(0)  # workers report meanwhile
        spread.preload(expected)


async def _reign(settings: SchedulerSettings, sessions: Sessions, clock: Clock, term: int) -> Reign:
    """With what is in SQL, and nothing else."""
    wishes = SqlWishes(sessions, term)
    fleet = Fleet(
        clock,
        lease_seconds=settings.lease_seconds,
        stuck_seconds=settings.stuck_seconds,
        wishes=await wishes.read(),
    )
    rules = MoveRules(balance_seconds=settings.migration_seconds, most_underway=settings.most_moves)
    migrations, spread = SqlMigrations(sessions, term), Spread(fleet, clock)
    demands = Demands(clock, lease_seconds=settings.gateway_lease_seconds)
    loop = Loop(
        fleet,
        Control(rules, term=term, now=clock.now()),
        Mover(),
        migrations,
        wishes,
        debts=demands.debts,
        keeping=Keeping(silent=2 * rules.move_seconds, kept=settings.migrations_kept_days * 86400),
    )
    return Reign(
        term=term,
        fleet=fleet,
        accounts=Accounts(clock, lease_seconds=settings.gateway_lease_seconds),
        demands=demands,
        spread=spread,
        loop=loop,
        operations=Operations(fleet, wishes, loop, spread),
        migrations=migrations,
    )


if __name__ == "__main__":
    run(main)
