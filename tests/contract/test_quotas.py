"""Quotas on SQLite and PostgreSQL: never overshot, whoever asks at once, and given back exactly."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import pytest

from services.core.errors import (
    NotFound,
    QuotaExceeded,
    RateLimited,
    ServingError,
    Unavailable,
)
from services.core.types import TenantId
from services.gateway.course import Course
from services.gateway.quotas import Quotas
from services.gateway.reservations import Reservations
from services.policies.quotas import Amount, Limits
from tests.completions import choices, completion
from tests.quota_world import World, opened, served

CALLERS = 64


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    async with opened(url) as world:
        yield world


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
        asked = choices(completion(world.tenant, prompt=3, most=7), count)
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


async def test_a_caller_that_leaves_before_it_is_let_in_has_used_nothing(world: World) -> None:
    await world.limit(tokens_in_total=1000, requests_per_minute=100)
    quotas = await world.gateway()
    gone = asyncio.create_task(served(quotas, world.course(), 1))
    await asyncio.sleep(0)  # it asks, and the database has yet to answer
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert await served(quotas, world.course(3, 7), 2)
    await world.close()  # when all is written
    use = await world.use()
    assert use.total_tokens == 5
    assert sum(second.requests for second in use.window) == 1


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


async def test_limits_of_nobody_are_not_set(world: World) -> None:
    with pytest.raises(NotFound):
        await world.repository.set_limits(TenantId("nobody"), "", {"requests_per_minute": 1})
    await world.limit(requests_per_minute=5, tokens_per_minute=6)
    await world.limit(requests_per_minute=None)
    account = await world.repository.quota(world.tenant, "")
    assert account.limits == Limits(tokens_per_minute=6)
