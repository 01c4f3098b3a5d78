"""Quotas on SQLite and PostgreSQL: never overshot, whoever asks at once, and given back exactly."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from uuid import uuid4

import pytest

from services.core.errors import (
    NotFound,
    QuotaExceeded,
    RateLimited,
    ServingError,
    Unavailable,
)
from services.core.types import KeyId, TenantId
from services.gateway.course import Course
from services.gateway.quotas import Quotas
from services.gateway.repositories.quotas import LEASE_SECONDS, SqlQuotaRepository
from services.gateway.repository import SqlTenantRepository
from services.gateway.reservations import Reservation, Reservations, Settlement
from services.gateway.tenants import Tenants
from services.policies.quotas import Amount, Limits, Use
from services.runtime.db import Sessions, close_sessions, open_sessions
from tests.completions import completion, course

CALLERS = 64


class Clock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A tenant, and gateways that share its database."""

    def __init__(self, sessions: Sessions, clock: Clock, tenant: TenantId) -> None:
        self.clock = clock
        self.tenant = tenant
        self.repository = SqlQuotaRepository(sessions, clock)
        self._running = AsyncExitStack()

    async def gateway(self) -> Quotas:
        reservations = Reservations(self.repository, uuid4().hex)
        await self._running.enter_async_context(reservations.kept())
        return Quotas(reservations)

    async def limit(self, key: str = "", **limits: int | None) -> None:
        await self.repository.set_limits(self.tenant, key, limits)

    async def use(self, key: str = "") -> Use:
        return (await self.repository.quota(self.tenant, key)).use

    def course(self, prompt: int = 3, most: int = 7, key: str | None = None) -> Course:
        return course(self.tenant, prompt=prompt, most=most, key=KeyId(key) if key else None)

    async def close(self) -> None:
        await self._running.aclose()


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    sessions = open_sessions(url)
    tenants = Tenants(SqlTenantRepository(sessions), pepper="pepper", operator_token="operator")
    tenant = await tenants.create(f"t{uuid4().hex[:8]}")
    world = World(sessions, Clock(), tenant.name)
    yield world
    await world.close()
    await close_sessions(sessions)


async def served(quotas: Quotas, course: Course, tokens: int) -> bool:
    """Whether it was let in."""
    try:
        async with quotas.keep(course):
            course.produced(tokens)
    except RateLimited:
        return False
    return True


class Crowd:
    """Callers whose requests all run until they are told to end; the most that ran at once."""

    def __init__(self) -> None:
        self.running = self.tokens = self.most = self.most_tokens = 0
        self.used = 0

    async def call(self, quotas: Quotas, course: Course, draw: random.Random) -> bool:
        job = course.completion.job
        most = len(job.prompt) + job.sampling.max_tokens
        try:
            async with quotas.keep(course):
                self.running += 1
                self.tokens += most
                self.most = max(self.most, self.running)
                self.most_tokens = max(self.most_tokens, self.tokens + self.used)
                await asyncio.sleep(0)
                course.produced(draw.randint(0, job.sampling.max_tokens))
                self.running -= 1
                self.tokens -= most
                self.used += len(job.prompt) + course.completion_tokens
        except RateLimited:
            return False
        return True


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        ("requests_per_minute", 13),
        ("tokens_per_minute", 137),
        ("concurrent_requests", 11),
        ("tokens_per_month", 137),
        ("tokens_in_total", 137),
    ],
)
async def test_many_callers_of_two_gateways_never_overshoot(
    world: World, limit: str, most: int
) -> None:
    await world.repository.set_limits(world.tenant, "", {limit: most})
    gateways = [await world.gateway(), await world.gateway()]
    crowd, draw = Crowd(), random.Random(1)
    courses = [world.course(prompt=1 + i % 4, most=2 + i % 9) for i in range(CALLERS)]
    calls = [crowd.call(gateways[i % 2], courses[i], draw) for i in range(CALLERS)]
    admitted = await asyncio.gather(*calls)
    for _ in range(3):  # whoever was refused asks again
        calls = [crowd.call(gateways[i % 2], world.course(1, 2), draw) for i in range(CALLERS)]
        admitted += await asyncio.gather(*calls)
    assert 0 < sum(admitted) < len(admitted) or limit == "concurrent_requests"
    if limit == "requests_per_minute":
        assert sum(admitted) == most
    elif limit == "concurrent_requests":
        assert 0 < crowd.most <= most
    else:
        assert 0 < crowd.most_tokens <= most
        while await crowd.call(gateways[0], world.course(1, 2), draw):
            pass
        assert most - 3 < crowd.used <= most  # all that fits was let in
    use = await world.use()
    assert use.running == Amount()
    assert use.total_tokens == use.month_tokens == crowd.used


async def test_what_is_not_used_is_given_back(world: World) -> None:
    await world.limit(tokens_in_total=20, concurrent_requests=1)
    quotas = await world.gateway()
    first = world.course(prompt=3, most=17)
    async with quotas.keep(first):
        assert (await world.use()).running == Amount(1, 20)
        assert not await served(quotas, world.course(), 7)
        first.produced(4)
    assert (await world.use()).total_tokens == 7
    assert await served(quotas, world.course(prompt=3, most=10), 10)
    assert (await world.use()).total_tokens == 20
    with pytest.raises(QuotaExceeded) as refused:
        async with quotas.keep(world.course(prompt=1, most=1)):
            pass
    assert refused.value.retry_seconds is None
    assert (await world.use()).running == Amount()


async def test_a_minute_is_over_when_it_is_over(world: World) -> None:
    await world.limit(tokens_per_minute=10, requests_per_minute=2)
    quotas = await world.gateway()
    assert await served(quotas, world.course(3, 7), 7)
    with pytest.raises(RateLimited) as refused:
        async with quotas.keep(world.course(3, 7)):
            pass
    assert refused.value.limit == "tokens_per_minute"
    assert refused.value.retry_seconds == 61
    world.clock.now += 60
    assert not await served(quotas, world.course(3, 7), 7)
    world.clock.now += 1
    assert await served(quotas, world.course(3, 7), 7)


@pytest.mark.parametrize(
    ("error", "tokens", "counted"),
    [
        (Unavailable("no worker"), 0, Amount(0, 0)),
        (ServingError("broke"), 0, Amount(0, 0)),
        (ValueError("a bug"), 0, Amount(0, 0)),
        (Unavailable("lost"), 2, Amount(1, 5)),
        (asyncio.CancelledError(), 0, Amount(1, 3)),
        (asyncio.CancelledError(), 2, Amount(1, 5)),
        (GeneratorExit(), 2, Amount(1, 5)),
        (None, 0, Amount(1, 3)),
    ],
)
async def test_how_a_request_ends_says_what_counts(
    world: World, error: BaseException | None, tokens: int, counted: Amount
) -> None:
    await world.limit(tokens_in_total=100, requests_per_minute=100)
    quotas = await world.gateway()
    with suppress(ServingError, ValueError, asyncio.CancelledError, GeneratorExit):
        ends = world.course(3, 7)
        async with quotas.keep(ends):
            ends.produced(tokens) if tokens else None
            if error is not None:
                raise error
    use = await world.use()
    assert use.running == Amount()
    assert use.total_tokens == counted.tokens
    assert sum(second.requests for second in use.window) == counted.requests


async def test_choices_are_let_in_together_or_not_at_all(world: World) -> None:
    await world.limit(concurrent_requests=3, tokens_in_total=100)
    quotas = await world.gateway()

    async def answered(count: int, tokens: int) -> list[bool]:
        asked = completion(world.tenant, prompt=3, most=7, choices=count)
        return list(await asyncio.gather(*(served(quotas, Course(a), tokens) for a in asked)))

    assert await answered(4, 1) == [False] * 4
    assert await world.use() == (await world.repository.quota(world.tenant, "")).use
    assert (await world.use()).total_tokens == 0
    assert await answered(3, 2) == [True] * 3
    use = await world.use()
    assert use.running == Amount()
    assert use.total_tokens == 15
    assert sum(second.requests for second in use.window) == 3


async def test_a_caller_that_leaves_before_it_is_let_in_holds_nothing(world: World) -> None:
    await world.limit(concurrent_requests=2, tokens_in_total=1000)
    quotas = await world.gateway()
    calls = [asyncio.create_task(served(quotas, world.course(), 1)) for _ in range(8)]
    for pause in range(8):
        await asyncio.sleep(0)
        calls[pause].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await world.close()  # when all is written
    assert (await world.use()).running == Amount()


async def test_limits_hold_from_the_next_request_on(world: World) -> None:
    quotas, other = await world.gateway(), await world.gateway()
    assert await served(quotas, world.course(), 7)  # now it is known that there are none
    await world.limit(requests_per_minute=0)
    assert not await served(other, world.course(), 7)
    await world.limit(requests_per_minute=1)
    assert await served(other, world.course(), 7)
    assert not await served(other, world.course(), 7)
    await world.limit(requests_per_minute=None)
    assert await served(other, world.course(), 7)


async def test_a_gateway_that_set_limits_does_not_believe_that_there_are_none(
    world: World,
) -> None:
    reservations = Reservations(world.repository, uuid4().hex)
    async with reservations.kept():
        quotas = Quotas(reservations)
        assert await served(quotas, world.course(), 7)
        assert reservations.unlimited(world.tenant)
        await world.limit(requests_per_minute=0)
        reservations.forget(world.tenant)
        assert not await served(quotas, world.course(), 7)


async def test_a_key_has_limits_of_its_own(world: World) -> None:
    await world.limit(key="k2345678", requests_per_minute=1)
    quotas = await world.gateway()
    assert await served(quotas, world.course(key="k2345678"), 7)
    with pytest.raises(RateLimited) as refused:
        async with quotas.keep(world.course(key="k2345678")):
            pass
    assert refused.value.subject == "key:k2345678"
    assert await served(quotas, world.course(key="another"), 7)
    await world.limit(requests_per_minute=1)
    assert await served(quotas, world.course(key="another"), 7)
    with pytest.raises(RateLimited) as refused:
        async with quotas.keep(world.course(key="another")):
            pass
    assert refused.value.subject == f"tenant:{world.tenant}"


async def test_what_a_killed_gateway_held_comes_back_once(world: World) -> None:
    await world.limit(concurrent_requests=2, tokens_in_total=100)
    held = Reservation(uuid4().hex, world.tenant, None, Amount(1, 10))
    other = Reservation(uuid4().hex, world.tenant, None, Amount(1, 10))
    await world.repository.write("killed", [held], [])
    world.clock.now += LEASE_SECONDS - 1
    await world.repository.write("alive", [other], [])
    await world.repository.reclaim()
    assert (await world.use()).running == Amount(2, 20)
    world.clock.now += 2
    await asyncio.gather(*(world.repository.reclaim() for _ in range(4)))
    use = await world.use()
    assert use.running == Amount(1, 10)
    assert use.total_tokens == 10  # what it had delivered is not known: all of it counts
    await world.repository.write("killed", [], [Settlement(held, Amount(1, 4))])  # was only slow
    await world.repository.write("alive", [], [Settlement(other, Amount(1, 4))] * 2)
    await world.repository.write("alive", [], [Settlement(other, Amount(1, 4))])
    use = await world.use()
    assert use.running == Amount()
    assert use.total_tokens == 14


async def test_a_heartbeat_keeps_what_is_held(world: World) -> None:
    await world.limit(concurrent_requests=2)
    held = Reservation(uuid4().hex, world.tenant, None, Amount(1, 10))
    await world.repository.write("slow", [held], [])
    world.clock.now += LEASE_SECONDS - 1
    await world.repository.renew("slow")
    world.clock.now += LEASE_SECONDS - 1
    await world.repository.reclaim()
    assert (await world.use()).running == Amount(1, 10)


class Broken(SqlQuotaRepository):
    """Whose commits go through, and whose answers sometimes get lost."""

    losing = False

    async def write(self, holder, reservations, settlements):  # type: ignore[no-untyped-def]
        decisions = await super().write(holder, reservations, settlements)
        if self.losing:
            self.losing = False
            raise OSError("the connection was lost")
        return decisions


async def test_what_may_have_been_committed_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.reservations.RETRY_SECONDS", 0.0)
    await world.limit(concurrent_requests=2, tokens_in_total=100)
    world.repository.__class__ = Broken
    quotas = await world.gateway()
    world.repository.losing = True  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        await served(quotas, world.course(), 7)
    settled = world.course()
    async with quotas.keep(settled):
        settled.produced(2)
        world.repository.losing = True  # type: ignore[attr-defined]
    assert await served(quotas, world.course(), 7)
    await world.close()
    use = await world.use()
    assert use.running == Amount()
    assert use.total_tokens == 5 + 10


async def test_limits_of_nobody_are_not_set(world: World) -> None:
    with pytest.raises(NotFound):
        await world.repository.set_limits(TenantId("nobody"), "", {"requests_per_minute": 1})
    await world.limit(requests_per_minute=5, tokens_per_minute=6)
    await world.limit(requests_per_minute=None)
    account = await world.repository.quota(world.tenant, "")
    assert account.limits == Limits(tokens_per_minute=6)


async def test_the_database_has_a_clock_of_its_own(world: World, url: str) -> None:
    sessions = open_sessions(url)
    repository = SqlQuotaRepository(sessions)
    await world.limit(requests_per_minute=1)
    asked = [Reservation(uuid4().hex, world.tenant, None, Amount(1, 1)) for _ in range(2)]
    first, second = await repository.write("holder", asked, [])
    assert first is not None
    assert first.refusal is None
    assert second is not None
    assert second.refusal is not None
    assert second.refusal.seconds in (60, 61)
    await close_sessions(sessions)
