"""Organisations and weights, as requests bring them to the queue."""

import pytest

from services.core.errors import TooLate
from services.core.types import Share, TenantId
from tests.paper_worker import PaperWorker
from tests.queue_world import World
from tests.unit.gateway.test_fairness_reports import ReportedWorld

ONE, FIVE = Share("one"), Share("five")


async def flooded(world: World, turns: int) -> list[str]:
    """Organisation "one" has a tenant, "five" has five; all have enough that waits. The tenants in
    the order of their turns, after the first."""
    await world.ask("first", "other")
    for n in range(turns):
        await world.ask(f"a.{n}", "a", share=ONE)
        for tenant in "vwxyz":
            await world.ask(f"{tenant}.{n}", tenant, share=FIVE)
    for _ in range(turns):
        await world.end(world.order[-1])
    return [name.partition(".")[0] for name in world.order[1:]]


async def test_an_organisation_gets_no_more_for_having_five_tenants() -> None:
    served = await flooded(World(policy="vtc-hierarchy"), 10)
    assert served.count("a") == 5
    assert {tenant: served.count(tenant) for tenant in "vwxyz"} == dict.fromkeys("vwxyz", 1)


async def test_it_would_if_tenants_alone_were_compared() -> None:
    assert (await flooded(World(policy="vtc"), 12)).count("a") == 2


async def test_what_is_compared_is_what_is_reported() -> None:
    world = ReportedWorld([PaperWorker(slots=1, pool_tokens=1000)], policy="vtc-hierarchy")
    await flooded(world, 10)
    report = await world.report()
    cost = 10 + 2  # of one of these: its prompt, and the token that it got
    assert report.fairness.service[TenantId("a")] == 5 * cost
    assert report.fairness.service[TenantId("v")] == cost
    assert report.fairness.gap <= cost  # of two tenants it would be four times that
    await world.ask("heavy", "h", share=Share("one", weight=0.1, organisation_weight=0.5))
    assert (await world.report()).bound == 2 * 2 * 2 * 1000


async def test_a_changed_weight_counts_from_the_next_request_on() -> None:
    world = World()
    await world.ask("first", "other")
    for n in range(12):
        await world.ask(f"a{n}", "a", share=Share(weight=3.0))
        await world.ask(f"b{n}", "b")
    for _ in range(12):
        await world.end(world.order[-1])
    assert sum(name.startswith("a") for name in world.order) == 9
    (lane,) = world.queue.look()
    assert {s.tenant: s.share.weight for s in lane.standings} == {"a": 3.0, "b": 1.0}
    await world.ask("later", "a")
    (lane,) = world.queue.look()
    assert {s.tenant: s.share.weight for s in lane.standings} == {"a": 1.0, "b": 1.0}


async def test_who_weighs_more_can_expect_to_come_sooner() -> None:
    world = World()
    for n in range(4):  # one admission in ten seconds
        await world.ask(f"r{n}")
    for n in range(3):
        world.now += 10
        await world.end(f"r{n}")
    heavy = Share(weight=9.0)
    for n in range(3):
        await world.ask(f"a{n}", "a", share=heavy)
        await world.ask(f"b{n}", "b")
    with pytest.raises(TooLate):
        await (await world.ask("light", "b", within_ms=50_000))
    assert not (await world.ask("heavy", "a", within_ms=50_000, share=heavy)).done()
