"""What gateways that died left on the books, on SQLite and PostgreSQL."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from services.core.clock import ManualClock
from services.gateway.leases import Recovery
from services.gateway.ledger import Batch
from services.gateway.records import LOST
from services.runtime.db import Sessions
from tests.books import Books, dead, record, rows


@pytest.fixture
def tenant() -> str:
    return f"t{uuid4().hex[:8]}"


async def test_what_the_dead_left_is_closed_once(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    instance, _ = await dead(books, tenant, requests=4)
    others = [Books(sessions) for _ in range(4)]
    closed = await asyncio.gather(*(other.close_lost(instance, 7) for other in others))
    assert sorted(closed) == [0, 0, 0, 4]
    found = await rows(sessions, tenant)
    assert [(r.outcome, r.completion_tokens, r.charge) for r in found] == [(LOST, 2, 7.0)] * 4
    assert instance not in await books.beats()


async def test_who_died_before_its_first_beat_is_found_too(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    instance = uuid4().hex[:16]
    await books.write(Batch(instance, opened=[record(tenant)]))
    assert (await books.beats())[instance] == 0
    assert await books.close_lost(instance, 0) == 1
    assert (await rows(sessions, tenant))[0].outcome == LOST


async def test_who_lives_keeps_what_it_has_open(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    instance, _ = await dead(books, tenant)
    await books.write(Batch(instance, beat=8))  # it was only slow
    assert await books.close_lost(instance, 7) == 0
    assert (await rows(sessions, tenant))[0].outcome is None


async def test_others_look_after_the_dead_and_not_after_the_living(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    clock = ManualClock(100.0)
    await dead(books, tenant)
    alive, _ = await dead(books, f"{tenant}-alive")
    recovery = Recovery(books, instance="another", lease_seconds=10, now=clock.now)
    for beat in range(8, 14):
        await books.write(Batch(alive, beat=beat))
        assert (await rows(sessions, tenant))[0].outcome is None
        await recovery.look()
        clock.advance(2.0)
    await recovery.look()
    assert (await rows(sessions, tenant))[0].outcome == LOST
    assert (await rows(sessions, f"{tenant}-alive"))[0].outcome is None
    await books.close_lost(alive, 13)


async def test_who_was_taken_for_dead_has_the_last_word(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    instance, (marked,) = await dead(books, tenant)
    assert await books.close_lost(instance, 7) == 1
    end = replace(marked, completion_tokens=5, charge=13.0, outcome="STOP")
    await books.write(Batch("another", closed=[replace(end, completion_tokens=1)]))
    assert (await rows(sessions, tenant))[0].completion_tokens == 2
    await books.write(Batch(instance, closed=[end]))
    assert await rows(sessions, tenant) == [end]


async def test_who_leaves_says_so_unless_it_leaves_something_open(
    books: Books, tenant: str
) -> None:
    instance, (marked,) = await dead(books, tenant)
    await books.leave(instance)
    assert instance in await books.beats()
    await books.write(Batch(instance, closed=[replace(marked, outcome="STOP")]))
    await books.leave(instance)
    assert instance not in await books.beats()
