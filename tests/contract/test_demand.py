"""What waits at a gateway, as an autoscaler reads it off the scheduler."""

import asyncio
import urllib.request

import pytest

from services.cli.suite import free_addresses
from services.core.errors import TooLate
from services.core.types import Digest, RequestId, Tier
from services.gateway import demand as gateway_demand
from services.gateway.course import Course
from services.gateway.demand import DemandReports, Punctuality
from services.policies.autoscaling import Rules
from services.policies.fairness.vtc import VirtualTokenCounters
from services.runtime.beside import beside
from services.runtime.client import open_channels
from services.runtime.clock import SystemClock
from services.runtime.db import IN_MEMORY, close_sessions, open_sessions
from services.runtime.metrics import exported
from services.scheduler.figures import figures
from services.scheduler.metrics import FleetMetrics
from services.scheduler.office import Office
from tests.completions import completion
from tests.paper_worker import PaperWorker
from tests.queue_world import World
from tests.schedulers import TOKEN, reign_of, serving, until

ADAPTER = Digest("a" * 64)


async def test_a_queue_is_told_and_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_demand, "SECONDS", 0.05)
    at, world, sessions = free_addresses(), World([PaperWorker(slots=1)]), open_sessions(IN_MEMORY)
    office, metrics = Office(SystemClock()), FleetMetrics()
    reign = reign_of(sessions, 4, clock=SystemClock())
    channels = open_channels(at.scheduler)
    for name in ("runs", "waits", "waits too"):
        await world.ask(name, adapter=ADAPTER)
    world.now += 7
    reports = DemandReports(world.queue, Punctuality(), channels, TOKEN)
    with office.held(reign, float("inf")):
        async with (
            serving(office, at.scheduler),
            beside(reports.run()),
            exported(metrics, at.worker),
        ):
            await until(lambda: bool(reign.demands.by_base()))
            (demand,) = reign.demands.by_base().values()
            assert (demand.waiting, demand.longest_wait_seconds) == (2, 7.0)
            assert reign.demands.requests_per_minute(ADAPTER) > 0
            metrics.leads(reign.term, figures(reign.fleet.workers(), reign.demands, Rules()))
            text = await asyncio.to_thread(read, f"http://{at.worker}/metrics")
    model = f'base_model="{demand.base_model}"'
    assert "lorikeet_scheduler_leads 1.0" in text
    assert f"lorikeet_scheduler_waiting_requests{{{model}}} 2.0" in text
    assert f"lorikeet_scheduler_longest_wait_seconds{{{model}}} 7.0" in text
    assert f"lorikeet_scheduler_workers_wanted{{{model}}} 1.0" in text
    for task in world.tasks.values():
        task.cancel()
    await asyncio.gather(*world.tasks.values(), return_exceptions=True)
    await channels.close()
    await close_sessions(sessions)


async def test_arrivals_are_told_once() -> None:
    world = World()
    await world.ask("one", adapter=ADAPTER)
    (first,), (second,) = world.queue.demands(), world.queue.demands()
    assert (first.arrived, second.arrived) == ({ADAPTER: 1}, {})
    await world.end("one")


async def test_what_tenants_with_less_than_others_have_running_is_told_as_owed() -> None:
    at, world, sessions = free_addresses(), World([PaperWorker(slots=3)]), open_sessions(IN_MEMORY)
    office, channels = Office(SystemClock()), open_channels(at.scheduler)
    reign = reign_of(sessions, 4, clock=SystemClock())
    for name, tenant in (("r1", "rich"), ("p1", "poor"), ("p2", "poor"), ("r2", "rich")):
        await world.ask(name, tenant)
    await world.ask("p3", "poor")
    policy = world.policies[Tier.DEFAULT]
    assert isinstance(policy, VirtualTokenCounters)
    policy.produced(RequestId("r1"), 500)
    with office.held(reign, float("inf")):
        async with serving(office, at.scheduler):
            reports = DemandReports(world.queue, Punctuality(), channels, TOKEN)
            (demand,) = world.queue.demands()
            await reports._report(reports._request(demand))
    owed = reign.demands.debts().owed
    assert owed == {"p1": 500.0, "p2": 500.0}  # below the mean of the two
    for task in world.tasks.values():
        task.cancel()
    await asyncio.gather(*world.tasks.values(), return_exceptions=True)
    await channels.close()
    await close_sessions(sessions)


@pytest.mark.parametrize(
    ("within_ms", "took", "outcome", "share"),
    [
        (100, 0.05, "STOP", 1.0),
        (100, 0.2, "STOP", 0.0),
        (100, None, TooLate.reason, 0.0),
        (100, None, "CANCELLED", 1.0),
        (None, 9.0, "STOP", 1.0),
    ],
)
async def test_a_first_token_is_in_time_or_not(
    within_ms: int | None, took: float | None, outcome: str, share: float
) -> None:
    punctuality, asked = Punctuality(), completion("t", within_ms=within_ms)
    course = Course(asked, accepted=10.0)
    async with punctuality.keep(course):
        course.first_token = None if took is None else 10.0 + took
        course.outcome = outcome
    assert punctuality.taken(asked.job.base_fingerprint) == share
    assert punctuality.taken(asked.job.base_fingerprint) == 1.0


def read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=5) as response:
        return str(response.read().decode())
