"""Who waits in the gateway, and who is given a worker when one has room."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from services.core.errors import TooLate, Unavailable
from services.core.types import (
    Digest,
    Fingerprint,
    RequestId,
    SamplingParams,
    TenantId,
    TokenPiece,
    WorkerId,
)
from services.gateway.base_models import ServedModel
from services.gateway.course import Completion, Job
from services.gateway.fair_queue import WORKERLESS_SECONDS, FairQueue
from services.gateway.lane import Ticket
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.vtc import VirtualTokenCounters
from services.policies.placement import WorkerView
from tests.tiny_models import tiny_card

BASE = ServedModel(tiny_card(), Tokenizer(models.WordLevel({})))
ADAPTER, OTHER = Digest("a" * 64), Digest("b" * 64)


@dataclass(eq=False)
class Slots:
    """A worker of so many slots and tokens, on nothing but paper."""

    name: str = "w1"
    slots: int = 1
    tokens: int = 1_000_000
    resident: frozenset[Digest] = frozenset()
    base: Fingerprint = BASE.card.fingerprint
    held: dict[RequestId, Job] = field(default_factory=dict)
    fetched: list[Digest] = field(default_factory=list)

    @property
    def has_room(self) -> bool:
        return len(self.held) < self.slots

    @property
    def pool_tokens(self) -> int:
        return self.tokens

    @property
    def adapters(self) -> frozenset[Digest]:
        return self.resident

    @property
    def view(self) -> WorkerView:
        return WorkerView(
            id=WorkerId(self.name),
            base_model=BASE.card.name,
            base_fingerprint=self.base,
            running=len(self.held),
            waiting=0,
            free_pages=0,
            resident=self.resident,
            draining=False,
        )

    def fits(self, job: Job) -> bool:
        used = sum(map(size, self.held.values()))
        return self.has_room and used + size(job) <= self.tokens

    def promise(self, job: Job) -> None:
        assert self.fits(job)
        self.held[job.request_id] = job

    def withdraw(self, request: RequestId) -> None:
        self.held.pop(request, None)

    def prefetch(self, adapter: Digest) -> None:
        self.fetched.append(adapter)

    def follow(self, job: Job, seconds: float) -> AsyncGenerator[TokenPiece, None]:
        raise NotImplementedError


def size(job: Job) -> int:
    return len(job.prompt) + job.sampling.max_tokens


@dataclass(eq=False)
class World:
    """A queue before workers on paper, and a clock that is set."""

    workers: list[Slots] = field(default_factory=lambda: [Slots()])
    policy: str = "vtc"
    most_waiting: int = 100
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.queue = FairQueue(
            self,
            lambda _: POLICIES[self.policy](Knobs()),
            most_waiting=self.most_waiting,
            now=lambda: self.now,
        )
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ends: dict[str, asyncio.Event] = {}

    def lines(self, base: Fingerprint) -> list[Slots]:
        return [worker for worker in self.workers if worker.base == base]

    async def ask(self, name: str, tenant: str = "t", **job: Any) -> asyncio.Task[None]:
        """Returns once it waits or runs; `end` ends it."""
        self.ends[name] = asyncio.Event()
        task = asyncio.create_task(self._course(name, completion(name, tenant, **job)))
        self.tasks[name] = task
        await settle()
        return task

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await settle()

    async def _course(self, name: str, asked: Completion) -> None:
        async with self.queue.entered(asked) as ticket:
            await self.queue.turn(ticket)
            self.order.append(name)
            ticket.produced(1)
            await self.ends[name].wait()


def completion(
    name: str,
    tenant: str,
    *,
    prompt: int = 10,
    most: int = 10,
    adapter: Digest | None = None,
    within_ms: int | None = None,
    base: Fingerprint = BASE.card.fingerprint,
) -> Completion:
    job = Job(
        request_id=RequestId(name),
        base_model=BASE.card.name,
        base_fingerprint=base,
        adapter=adapter,
        prompt=tuple(range(prompt)),
        sampling=SamplingParams(max_tokens=most),
        cache_salt=tenant,
        first_token_within_ms=within_ms,
    )
    return Completion(TenantId(tenant), None, BASE.card.name, BASE, job)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def standing(world: World, name: str, tenant: str = "t") -> AsyncIterator[Ticket]:
    async with world.queue.entered(completion(name, tenant)) as ticket:
        await world.queue.turn(ticket)
        yield ticket


def counters(world: World) -> VirtualTokenCounters:
    policy = world.queue.look()[0].policy
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
    world = World([Slots(slots=4, tokens=100)])
    await world.ask("small", "a", prompt=30, most=10)
    await world.ask("large", "b", prompt=60, most=20)
    await world.ask("tiny", "a", prompt=1, most=1)
    assert world.order == ["small"]
    await world.end("small")
    assert world.order == ["small", "large", "tiny"]


async def test_all_the_room_there_is_is_used() -> None:
    world = World([Slots("w1", slots=2), Slots("w2", slots=3)])
    for n in range(9):
        await world.ask(str(n), f"t{n % 3}")
    assert [len(worker.held) for worker in world.workers] == [2, 3]
    for name in list(world.order):
        await world.end(name)
    assert len(world.order) == 9


async def test_a_request_goes_where_its_adapter_is() -> None:
    world = World([Slots("w1", slots=2), Slots("w2", slots=2, resident=frozenset({ADAPTER}))])
    await world.ask("r", adapter=ADAPTER)
    assert list(world.workers[1].held) == ["r"]


async def test_the_adapter_of_who_is_next_is_fetched_while_it_waits() -> None:
    world = World([Slots(resident=frozenset({OTHER}))])
    await world.ask("runs")
    await world.ask("known", adapter=OTHER)
    assert world.workers[0].fetched == []
    await world.end("runs")
    await world.ask("next", adapter=ADAPTER)
    assert ADAPTER in world.workers[0].fetched


async def test_bases_do_not_wait_for_each_other() -> None:
    second = Fingerprint("5" * 64)
    world = World([Slots("w1"), Slots("w2", base=second)])
    await world.ask("a")
    await world.ask("b")
    await world.ask("c", base=second)
    assert world.order == ["a", "c"]


@pytest.mark.parametrize("moment", ["waiting", "granted"])
async def test_one_that_goes_away_leaves_nothing(moment: str) -> None:
    world = World()
    await world.ask("first", "a")
    task = asyncio.create_task(world._course("gone", completion("gone", "b")))
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
    world = World([Slots("w1"), Slots("w2", slots=0)])
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


async def test_without_a_worker_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.fair_queue.TICK_SECONDS", 0.001)
    world = World([])
    with pytest.raises(Unavailable, match="no worker"):
        await (await world.ask("none"))
    world.workers = [Slots(slots=0)]
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
    world = World([Slots(slots=0)], most_waiting=4)
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
    world = World([Slots(slots=500)], policy="rpm-delay")
    ticking = asyncio.create_task(world.queue.run())
    for n in range(61):
        await world.ask(str(n))
    assert len(world.order) == 60
    world.now += 61
    await asyncio.sleep(0.02)
    assert len(world.order) == 61
    ticking.cancel()


async def test_the_queue_can_be_looked_at() -> None:
    world = World([Slots(slots=2, tokens=1000)])
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
