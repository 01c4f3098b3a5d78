"""Tiers of service in the queue: who is next, who has to go, and what is said of it."""

from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from lorikeet.gateway.v1 import queue_service_pb2 as pb
from services.core.errors import TooLate, Unavailable
from services.core.types import Share, Tier
from services.gateway.fairness import QueueMetrics
from services.gateway.queue_servicer import QueueServicer
from services.runtime.wire import tier_from_wire
from tests.paper_worker import PaperWorker
from tests.queue_world import World
from tests.unit.gateway.test_fairness_reports import ReportedWorld

PRIORITY, DEFAULT, FLEX = Tier


async def test_a_higher_tier_is_next_and_a_lower_one_has_its_part() -> None:
    world = World()
    for n in range(30):
        await world.ask(f"d{n}", "a")
        await world.ask(f"f{n}", "b", tier=FLEX)
    await world.ask("p", "c", tier=PRIORITY)
    await world.end("d0")
    assert world.order[1] == "p"
    for _ in range(25):
        await world.end(world.order[-1])
    assert 4 <= sum(name.startswith("f") for name in world.order) <= 6


@pytest.mark.parametrize("tier", Tier)
async def test_where_too_many_wait_those_with_most_for_their_weight_have_to_go(tier: Tier) -> None:
    """Whatever tier floods: no other loses anything by it."""
    world = World(most_waiting=60)
    await world.ask("runs")
    others = [
        await world.ask(f"other {each.value}", "o", tier=each) for each in Tier if each is not tier
    ]
    flood = [await world.ask(f"{n}", f"t{n % 7}", tier=tier) for n in range(100)]
    assert not any(task.done() for task in others)
    refused = [task for task in flood if task.done()]
    assert len(refused) == 100 + 2 - 60
    for task in refused:
        with pytest.raises(Unavailable, match="too many of your requests"):
            await task


@pytest.mark.parametrize(("policy", "loses"), [("vtc", True), ("vtc-hierarchy", False)])
async def test_under_a_hierarchy_it_is_the_organisation_with_most(policy: str, loses: bool) -> None:
    """Though each of its tenants has fewer than the tenant that is by itself."""
    world = World(most_waiting=12, policy=policy)
    await world.ask("runs")
    alone = [await world.ask(f"alone {n}", "alone") for n in range(4)]
    crowd = [await world.ask(f"{n}", f"t{n % 10}", share=Share("crowd")) for n in range(20)]
    assert any(task.done() for task in alone) == loses
    for task in [*alone, *crowd]:
        assert not task.done() or isinstance(task.exception(), Unavailable)


async def test_one_can_expect_to_come_as_soon_as_its_tier_lets_it() -> None:
    world = World()
    for n in range(40):
        await world.ask(f"d{n}", "a", tier=FLEX)
    for _ in range(3):  # one admission in ten seconds
        world.now += 10
        await world.end(world.order[-1])
    for n in range(4):
        await world.ask(f"b{n}", "b", tier=PRIORITY)
    with pytest.raises(TooLate, match="would come later"):
        await (await world.ask("flex", "a", tier=FLEX, within_ms=60_000))
    assert not (await world.ask("priority", "b", tier=PRIORITY, within_ms=60_000)).done()
    (lane,) = world.queue.look()
    assert lane.too_late[FLEX].most(9) == {"a": 1}
    assert lane.too_late[PRIORITY].most(9) == {}


async def test_operators_see_each_tier() -> None:
    world = ReportedWorld([PaperWorker(slots=1, pool_tokens=1000)])
    await world.ask("d", "a")
    for n in range(2):
        await world.ask(f"f{n}", "a", tier=FLEX)
    registry = CollectorRegistry()
    registry.register(QueueMetrics(world.reports))
    text = generate_latest(registry).decode()
    assert 'lorikeet_waiting_requests{base_model="tiny",tier="flex"} 2.0' in text
    assert 'lorikeet_running_requests{base_model="tiny",tier="default"} 1.0' in text
    request, context = pb.WatchQueueRequest(once=True), cast(Any, None)
    told = [each async for each in QueueServicer(world.reports).WatchQueue(request, context)]
    seen = {tier_from_wire(lane.tier): lane.tenants[0] for lane in told[0].lanes}
    assert {tier: (one.waiting, one.running) for tier, one in seen.items()} == {
        DEFAULT: (0, 1),
        FLEX: (2, 0),
    }
