"""What is kept of the fleet, on SQLite and PostgreSQL: only who leads writes it."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from services.core.errors import Unavailable
from services.core.reports import Moved, MoveOutcome
from services.core.types import Digest, RequestId, WorkerId
from services.policies.migration.loads import Reason
from services.runtime.db import Sessions
from services.scheduler.migrations import Migration, MigrationState
from services.scheduler.repository import SqlMigrations, SqlTerms, SqlWishes
from services.scheduler.wishes import Pin, WorkerWish

ADAPTER = Digest("a" * 64)


@pytest.fixture
async def term(sessions: Sessions) -> int:
    return await SqlTerms(sessions).take_over("here")


def migration(source: str, target: str) -> Migration:
    who = RequestId(uuid4().hex)
    return Migration(
        uuid4().hex, who, ADAPTER, WorkerId(source), WorkerId(target), Reason.DRAIN, 0.5
    )


async def test_each_who_takes_over_has_a_higher_term(sessions: Sessions) -> None:
    terms = SqlTerms(sessions)
    taken = await asyncio.gather(*(terms.take_over(f"s{n}") for n in range(5)))
    assert len(set(taken)) == 5
    assert await terms.take_over("last") == max(taken) + 1


async def test_what_is_wished_is_read_again(sessions: Sessions, term: int) -> None:
    wishes, worker = SqlWishes(sessions, term), WorkerId(uuid4().hex)
    for wish in (WorkerWish.CORDON, WorkerWish.DRAIN):
        await wishes.set_worker(worker, wish, "operator")
    assert (await wishes.read()).workers[worker] is WorkerWish.DRAIN
    for count in (1, 3):
        await wishes.pin(Pin(ADAPTER, "base", count), "operator")
    assert (await wishes.read()).pins == {ADAPTER: Pin(ADAPTER, "base", 3)}
    await wishes.unpin(ADAPTER)
    assert (await wishes.read()).pins == {}


async def test_a_leader_that_was_followed_by_another_writes_nothing(
    sessions: Sessions, term: int
) -> None:
    wishes, log = SqlWishes(sessions, term), SqlMigrations(sessions, term)
    worker = WorkerId(uuid4().hex)
    await SqlTerms(sessions).take_over("another")
    with pytest.raises(Unavailable, match="standby"):
        await wishes.set_worker(worker, WorkerWish.DRAIN, "operator")
    with pytest.raises(Unavailable, match="standby"):
        await wishes.pin(Pin(ADAPTER, "base", 1), "operator")
    with pytest.raises(Unavailable, match="standby"):
        await log.add([migration(worker, "b")])
    assert worker not in (await wishes.read()).workers
    assert await log.page(worker, before=None, limit=10) == []


async def test_a_move_is_logged_settled_and_forgotten(sessions: Sessions, term: int) -> None:
    log, source = SqlMigrations(sessions, term), uuid4().hex
    left, gone, silent = await log.add([migration(source, "b") for _ in range(3)])
    assert left.ordered_us > 0
    await log.settle(
        [
            Moved(left.id, left.request, MoveOutcome.LEFT, 12),
            Moved(gone.id, gone.request, MoveOutcome.GONE),
            Moved("unknown", gone.request, MoveOutcome.LEFT),
        ]
    )
    await log.settle([Moved(left.id, left.request, MoveOutcome.GONE)])  # said again, too late
    await log.tidy(silent_us=60_000_000, kept_us=60_000_000)
    before = [found for _, found in await log.page(source, before=None, limit=10)]
    assert before == [
        silent,
        replace(gone, state=MigrationState.VOID),
        replace(left, state=MigrationState.LEFT, tokens=12),
    ]
    await log.tidy(silent_us=-1, kept_us=60_000_000)
    assert (await log.page(source, before=None, limit=1))[0][1].state is MigrationState.VOID
    await log.tidy(silent_us=0, kept_us=-1)
    assert await log.page(source, before=None, limit=10) == []


async def test_pages_go_back_in_time_and_name_either_end(sessions: Sessions, term: int) -> None:
    log, one, other = SqlMigrations(sessions, term), uuid4().hex, uuid4().hex
    made = await log.add([migration(one, other), migration(other, one), migration("x", "y")])
    ((number, newest),) = await log.page(one, before=None, limit=1)
    assert newest == made[1]
    older = await log.page(one, before=number, limit=10)
    assert [found for _, found in older] == [made[0]]
