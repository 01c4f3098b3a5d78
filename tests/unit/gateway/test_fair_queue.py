"""Who waits in the gateway, and who is given a worker when one has room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from services.core.errors import TooLate, Unavailable
from services.core.reports import LoadTimes, TransferTimes
from services.core.types import Digest, Fingerprint, RequestId, Tier, WorkerId
from services.gateway.fair_queue import WORKERLESS_SECONDS
from services.gateway.lane import Ticket
from services.policies.fairness.vtc import VirtualTokenCounters
from services.policies.placement.homes import homes
from tests.paper_worker import PaperWorker
from tests.queue_world import World, settle, waiting

ADAPTER, OTHER = Digest("a" * 64), Digest("b" * 64)


@asynccontextmanager
async def standing(world: World, name: str, tenant: str = "t") -> AsyncIterator[Ticket]:
    async with world.queue.entered(waiting(name, tenant)) as ticket:
        await world.queue.turn(ticket)
        yield ticket


def an_adapter_of(home: str, workers: list[PaperWorker]) -> Digest:
    """Which is at home there."""
    among = {WorkerId(worker.name): 1.0 for worker in workers}
    every = (Digest(f"{number:064x}") for number in range(100))
    return next(adapter for adapter in every if homes(adapter, among, 1) == (home,))


def counters(world: World) -> VirtualTokenCounters:
    policy = world.policies[Tier.DEFAULT]
    assert isinstance(policy, VirtualTokenCounters)
    return policy


async def test_whoever_had_least_is_next_and_not_who_came_first() -> None:
    world = World()
    for name, tenant in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b")):
        await world.ask(name, tenant)
    for _ in range(5):
        await world.end(world.order[-1])
    # b was lifted to a's counter when it came, so they are even after a's second.
    assert world.order == ["a1", "a2", "b1", "a3", "b2"]


async def test_one_that_does_not_fit_is_not_overtaken_and_starts_as_soon_as_it_does() -> None:
    world = World([PaperWorker(slots=4, pool_tokens=100)])
    await world.ask("small", "a", prompt=30, most=10)
    await world.ask("large", "b", prompt=60, most=20)
    await world.ask("tiny", "a", prompt=1, most=1)
    assert world.order == ["small"]
    await world.end("small")
    assert world.order == ["small", "large", "tiny"]


async def test_all_the_room_there_is_is_used() -> None:
    world = World([PaperWorker("w1", slots=2), PaperWorker("w2", slots=3)])
    for n in range(9):
        await world.ask(str(n), f"t{n % 3}")
    assert [len(worker.held) for worker in world.workers] == [2, 3]
    for name in list(world.order):
        await world.end(name)
    assert len(world.order) == 9


async def test_a_request_goes_where_its_adapter_is() -> None:
    knows = PaperWorker("w2", slots=2, adapters=frozenset({ADAPTER}))
    world = World([PaperWorker("w1", slots=2), knows])
    await world.ask("r", adapter=ADAPTER)
    assert list(knows.held) == ["r"]


@pytest.mark.parametrize(("owed", "goes"), [(0, "knows"), (100_000, "idle")])
async def test_who_is_owed_more_goes_where_it_is_quicker_though_others_pay(
    owed: int, goes: str
) -> None:
    """Sixty run where its adapter is: all of them would be slower. To load it costs who comes later
    more."""
    idle = PaperWorker("idle", slots=0, pool_tokens=10_000)
    knows = PaperWorker("knows", slots=0, pool_tokens=10_000)
    adapter = an_adapter_of("knows", [idle, knows])
    knows.adapters = frozenset({adapter})
    knows.held = {RequestId(str(n)): waiting(str(n)).job for n in range(60)}
    world = World([idle, knows])
    await world.ask("poor", "poor", adapter=adapter, most=100)
    await world.ask("rich", "rich", most=100)
    counters(world)._highest.charge("rich", owed)
    idle.slots, knows.slots = 1, 61
    world.queue.dispatch()
    assert [worker.name for worker in (idle, knows) if "poor" in worker.held] == [goes]


@pytest.mark.parametrize("home", ["w1", "w2"])
async def test_an_adapter_that_nobody_has_goes_to_its_home(home: str) -> None:
    workers = [
        PaperWorker("w1", slots=2),
        PaperWorker("w2", slots=2),
    ]
    world = World(workers)
    await world.ask("r", adapter=an_adapter_of(home, workers))
    assert [worker.view.id for worker in workers if worker.held] == [home]


@pytest.mark.parametrize(("size", "chosen"), [(1 << 10, "w2"), (1 << 30, "w1")])
async def test_an_adapter_is_fetched_where_one_of_its_size_comes_soonest(
    size: int, chosen: str
) -> None:
    workers = [
        PaperWorker("w1", slots=2, load_times=LoadTimes(TransferTimes(500.0, 1e-6, 1 << 20))),
        PaperWorker("w2", slots=2, load_times=LoadTimes(TransferTimes(20.0, 1e-4, 1 << 20))),
    ]
    await World(workers).ask("r", adapter=ADAPTER, adapter_bytes=size)
    assert [worker.name for worker in workers if worker.held] == [chosen]


async def test_a_home_without_room_is_not_waited_for() -> None:
    workers = [PaperWorker("w1", slots=1), PaperWorker("w2", slots=1)]
    world, adapter = World(workers), an_adapter_of("w1", workers)
    await world.ask("first", adapter=adapter)
    await world.ask("second", adapter=adapter)
    assert [list(worker.held) for worker in workers] == [["first"], ["second"]]


async def test_the_adapter_of_who_is_next_is_fetched_while_it_waits() -> None:
    world = World([PaperWorker(slots=1, adapters=frozenset({OTHER}))])
    await world.ask("runs")
    await world.ask("known", adapter=OTHER)
    assert world.workers[0].fetched == []
    await world.end("runs")
    await world.ask("next", adapter=ADAPTER)
    assert ADAPTER in world.workers[0].fetched


async def test_bases_do_not_wait_for_each_other() -> None:
    second = Fingerprint("5" * 64)
    world = World([PaperWorker("w1", slots=1), PaperWorker("w2", slots=1, base=second)])
    await world.ask("a")
    await world.ask("b")
    await world.ask("c", base=second)
    assert world.order == ["a", "c"]


@pytest.mark.parametrize("moment", ["waiting", "granted"])
async def test_one_that_goes_away_leaves_nothing(moment: str) -> None:
    world = World()
    await world.ask("first", "a")
    task = asyncio.create_task(world._course("gone", waiting("gone", "b")))
    await settle()
    if moment == "granted":  # its turn has come, but it has not heard of it yet
        world.ends["first"].set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if moment == "waiting":
        assert list(world.workers[0].held) == ["first"]
        await world.end("first")
    await settle()
    assert world.workers[0].held == {}
    assert counters(world).counters == {}
    assert not counters(world)._running
    await world.ask("next")
    assert world.order[-1] == "next"


async def test_another_worker_takes_over_before_all_who_wait_and_nothing_is_charged_twice() -> None:
    world = World([PaperWorker("w1", slots=1), PaperWorker("w2", slots=0)])
    async with AsyncExitStack() as stack:
        ticket = await stack.enter_async_context(standing(world, "fails", "a"))
        await world.ask("waits", "b")
        charged = counters(world)._highest.of("a")
        world.workers[0].withdraw(RequestId("fails"))
        again = asyncio.create_task(world.queue.turn(ticket))
        await settle()
        assert world.order == ["waits"]  # on w1, which has failed the other
        world.workers[1].slots = 1
        world.queue.dispatch()
        assert (await again).view.id == "w2"
        assert counters(world)._highest.of("a") == charged
    await world.end("waits")


async def test_one_that_every_worker_has_failed_is_given_up() -> None:
    world = World()
    async with standing(world, "fails") as ticket, asyncio.timeout(10):
        with pytest.raises(Unavailable, match="every worker"):
            await world.queue.turn(ticket)


async def test_one_is_given_up_when_all_that_are_left_have_failed_it() -> None:
    failing, other = PaperWorker(slots=1), PaperWorker("w2", slots=0)
    world = World([failing, other])
    async with standing(world, "fails") as ticket, asyncio.timeout(5):
        again = asyncio.create_task(world.queue.turn(ticket))
        await settle()
        assert not again.done()  # the other may come to have room
        world.workers = [failing]
        world.queue.dispatch()
        with pytest.raises(Unavailable, match="every worker"):
            await again


async def test_one_whose_only_worker_died_starts_when_that_is_back_under_its_name() -> None:
    world = World()
    async with standing(world, "lost") as ticket, asyncio.timeout(10):
        world.workers = []
        again = asyncio.create_task(world.queue.turn(ticket))
        await settle()
        assert not again.done()
        back = PaperWorker(slots=1)
        world.workers = [back]
        world.queue.dispatch()
        assert await again is back


async def test_without_a_worker_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.fair_queue.TICK_SECONDS", 0.001)
    world = World([])
    with pytest.raises(Unavailable, match="no worker"):
        await (await world.ask("none"))
    world.workers = [PaperWorker(slots=0)]
    waiting = await world.ask("waits")
    ticking = asyncio.create_task(world.queue.run())
    world.workers = []
    world.now += WORKERLESS_SECONDS - 0.1
    await asyncio.sleep(0.01)
    assert not waiting.done()
    world.now += 0.2
    with pytest.raises(Unavailable, match="no worker"):
        await waiting
    ticking.cancel()


async def test_where_too_many_wait_the_newest_of_the_greediest_has_to_go() -> None:
    world = World([PaperWorker(slots=0)], most_waiting=4)
    for n in range(3):
        await world.ask(f"greedy{n}", "greedy")
    await world.ask("light0", "light")
    await world.ask("light1", "light")
    with pytest.raises(Unavailable, match="too many of your requests") as refused:
        async with asyncio.timeout(10):
            await world.tasks["greedy2"]
    assert refused.value.retry_seconds > 0
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await (await world.ask("greedy3", "greedy"))
    assert not world.tasks["light1"].done()
    assert not world.tasks["greedy1"].done()


async def test_what_comes_too_late_is_refused_when_that_is_known() -> None:
    world = World()
    await world.ask("r0")
    waits = await world.ask("waits", within_ms=20)
    with pytest.raises(TooLate):
        await waits
    for n in range(1, 4):  # one admission in ten seconds
        await world.ask(f"r{n}")
    for n in range(3):
        world.now += 10
        await world.end(f"r{n}")
    await world.ask("behind")
    with pytest.raises(TooLate, match="would come later"):
        await (await world.ask("hopeless", within_ms=5000))
    patient = await world.ask("patient", within_ms=600_000)
    assert not patient.done()


async def test_a_policy_may_let_time_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.fair_queue.TICK_SECONDS", 0.001)
    world = World([PaperWorker(slots=500)], policy="rpm-delay")
    ticking = asyncio.create_task(world.queue.run())
    for n in range(61):
        await world.ask(str(n))
    assert len(world.order) == 60
    world.now += 61
    async with asyncio.timeout(10):
        while len(world.order) < 61:  # noqa: ASYNC110  # the queue's own clock
            await asyncio.sleep(0.001)
    ticking.cancel()


async def test_the_queue_can_be_looked_at() -> None:
    world = World([PaperWorker(slots=2, pool_tokens=1000)])
    for name, tenant in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")):
        await world.ask(name, tenant)
    world.now += 5
    (lane,) = world.queue.look()
    assert (lane.workers, lane.pool_tokens, lane.longest_prompt) == (1, 1000, 10)
    assert [(s.tenant, s.waiting, s.running, s.longest_wait) for s in lane.standings] == [
        ("a", 1, 2, 5.0),
        ("b", 1, 0, 5.0),
    ]
    for _ in range(4):
        await world.end(world.order[-1])
        world.order = [name for name in world.order if not world.tasks[name].done()]
    assert world.queue.look()[0].standings == []
