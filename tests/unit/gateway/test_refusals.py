"""Requests that were refused because they would have come too late: whose, and at what cost."""

import asyncio
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from lorikeet.gateway.v1 import queue_service_pb2 as pb
from services.core.errors import TooLate, Unavailable
from services.core.types import TenantId, Tier
from services.gateway.fairness import QueueMetrics
from services.gateway.queue_servicer import QueueServicer
from services.gateway.refusals import Refusals
from tests.queue_world import World, waiting
from tests.unit.gateway.test_fair_queue import counters, standing
from tests.unit.gateway.test_fairness_reports import ReportedWorld

A, B, C = (TenantId(name) for name in "abc")


async def refused_in_the_queue(world: World, tenant: str) -> None:
    task = await world.ask(f"late {tenant}", tenant, within_ms=1)
    with pytest.raises(TooLate):
        async with asyncio.timeout(10):
            await task


async def fail(world: World, tenant: str, error: Exception) -> None:
    """By its worker."""
    with pytest.raises(type(error)):
        async with standing(world, f"fails {tenant} {error}", tenant):
            raise error


async def test_they_are_counted_by_tenant_wherever_it_was_known() -> None:
    world = World()
    await fail(world, "a", TooLate("the worker would have been too late"))
    await fail(world, "a", Unavailable("the worker was lost"))
    await world.ask("runs", "b")
    await refused_in_the_queue(world, "a")
    (lane,) = world.queue.look()
    assert lane.too_late[Tier.DEFAULT].most(9) == {A: 2}
    for n in range(4):
        await world.ask(f"b{n}", "b")
    for _ in range(3):  # one admission in ten seconds
        world.now += 10
        await world.end(world.order[-1])
    with pytest.raises(TooLate, match="would come later"):
        async with world.queue.entered(waiting("hopeless", "c", within_ms=100)):
            raise AssertionError("it was let in")
    assert lane.too_late[Tier.DEFAULT].most(9) == {A: 2, C: 1}


async def test_who_was_refused_paid_nothing_and_is_next_as_if_it_had_not_asked() -> None:
    world = World()
    for name in ("a1", "a2", "a3"):
        await world.ask(name, "a")
    paid = counters(world).counters["a"]
    for _ in range(3):
        await refused_in_the_queue(world, "b")
    await world.ask("b1", "b")
    assert counters(world).counters == {"a": paid, "b": paid}  # lifted, as whoever comes new
    for _ in range(3):
        await world.end(world.order[-1])
    assert world.order == ["a1", "a2", "b1", "a3"]


async def test_ones_burst_gets_nobody_elses_requests_refused() -> None:
    world = World()
    for n in range(20):
        await world.ask(f"a{n}", "a")
    for _ in range(3):  # one admission in ten seconds
        world.now += 10
        await world.end(world.order[-1])
    with pytest.raises(TooLate, match="would come later"):
        await (await world.ask("its own", "a", within_ms=60_000))
    assert not (await world.ask("another's", "b", within_ms=60_000)).done()
    (lane,) = world.queue.look()
    assert lane.too_late[Tier.DEFAULT].most(9) == {A: 1}


def test_the_most_refused_are_named_and_all_are_counted() -> None:
    refusals = Refusals(known=2)
    for tenant in (A, B, B, A, A, C):
        refusals.note(tenant)
    assert refusals.most(9) == {A: 3, C: 1, "other": 2}  # b was refused least lately
    assert refusals.most(1) == {A: 3, "other": 3}


async def test_operators_see_them_also_of_who_has_gone() -> None:
    world = ReportedWorld()
    await world.ask("runs", "a")
    await refused_in_the_queue(world, "b")
    registry = CollectorRegistry()
    registry.register(QueueMetrics(world.reports))
    line = 'lorikeet_too_late_requests_total{base_model="tiny",tenant="b",tier="default"} 1.0'
    assert line in generate_latest(registry).decode()
    await world.end("runs")
    request, context = pb.WatchQueueRequest(once=True), cast(Any, None)
    told = [each async for each in QueueServicer(world.reports).WatchQueue(request, context)]
    assert dict(told[0].lanes[0].too_late) == {"b": 1}
