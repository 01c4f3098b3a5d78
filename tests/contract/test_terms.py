"""Gateways and workers hear no scheduler that was followed by another, over real gRPC."""

import math
from contextlib import AsyncExitStack, ExitStack

from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from services.cli.suite import free_addresses
from services.core.reports import WorkerReport
from services.core.types import Fingerprint, WorkerId
from services.gateway.workers import Workers
from services.gpu_worker.clients import SchedulerClient
from services.runtime.beside import beside
from services.runtime.client import open_channels
from services.runtime.clock import SystemClock
from services.runtime.db import IN_MEMORY, close_sessions, open_sessions
from services.scheduler.office import Office, Reign
from services.scheduler.worker import Identity
from tests.schedulers import TOKEN, Attending, reign_of, serving, until


def knows(reign: Reign, worker: str) -> None:
    """One that is attached, as it says."""
    identity = Identity(WorkerId(worker), "127.0.0.1:1", "base", Fingerprint("f"), "cpu")
    reign.fleet.lease_seconds = 60.0
    reign.fleet.join(identity, WorkerReport())


async def test_a_leader_of_a_lower_term_is_not_heard() -> None:
    at, clock, sessions = free_addresses(), SystemClock(), open_sessions(IN_MEMORY)
    leader, late, next_ = (reign_of(sessions, term, clock=clock) for term in (5, 3, 6))
    for reign, worker in ((leader, "of-5"), (late, "of-3"), (next_, "of-6")):
        knows(reign, worker)
    addresses = f"{at.scheduler},{at.worker}"
    channels, of_worker = open_channels(addresses), open_channels(addresses)
    seen: set[str] = set()
    workers = Workers(TOKEN)
    workers.changed = lambda: seen.update(workers._named)
    heard: list[int] = []
    identity = pb.WorkerIdentity(id="w", address="127.0.0.1:1", base_model="b")
    client = SchedulerClient(of_worker, TOKEN, identity, Attending(heard))
    one, other = Office(clock), Office(clock)
    asked: list[str] = []  # of the late one: who joined or left
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(one, at.scheduler))
        await stack.enter_async_context(serving(other, at.worker))
        leading = stack.enter_context(ExitStack())
        leading.enter_context(one.held(leader, math.inf))
        await stack.enter_async_context(beside(workers.follow(channels), client.stay_attached()))
        await until(lambda: "of-5" in seen and 5 in heard)
        stack.enter_context(late.fleet.watched(lambda: asked.append("told")))
        with other.held(late, math.inf):
            leading.close()
            await until(lambda: len(asked) >= 2)  # the worker came, heard, and left
        with other.held(next_, math.inf):
            await until(lambda: "of-6" in seen and 6 in heard)
    assert "of-3" not in seen
    assert set(heard) == {5, 6}
    for each in (workers, channels, of_worker):
        await each.close()
    await close_sessions(sessions)
