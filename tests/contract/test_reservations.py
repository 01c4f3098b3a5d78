"""Reservations on SQLite and PostgreSQL whose gateway loses an answer."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from services.core.errors import Unavailable
from services.gateway.repositories.quotas import SqlQuotaRepository
from services.gateway.reservations import Reservation
from services.policies.quotas import Amount
from services.runtime.db import close_sessions, open_sessions
from tests.quota_world import World, opened, served


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    async with opened(url) as world:
        yield world


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
