"""The books on SQLite and PostgreSQL: every request once, whatever fails."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from uuid import uuid4

import pytest

from services.core.errors import Unavailable
from services.core.types import Fingerprint, Tier, WorkerId
from services.gateway import ledger as module
from services.gateway.course import Completion, Course, TextPiece
from services.gateway.gateway import Gateway
from services.gateway.leases import Left
from services.gateway.ledger import Batch
from services.gateway.lines import Lines
from services.gateway.repositories.leases import SqlLeases
from services.gateway.repositories.quotas import SqlQuotaRepository
from services.runtime.db import Sessions
from tests.books import (
    Books,
    Unreliable,
    Worker,
    accepted,
    dead,
    keeping,
    ledger_of,
    rows,
)

QUICK = {"mark": 0.01}  # seconds


@pytest.fixture
def tenant() -> str:
    return f"t{uuid4().hex[:8]}"


async def told(gateway: Gateway, of: Completion) -> int:
    """Streams it; the tokens that the last piece says."""
    async with aclosing(gateway.stream(of, seconds=60)) as pieces:
        return [piece.completion_tokens async for piece in pieces][-1]


async def test_a_row_says_all_there_is_to_say(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    asked = accepted(
        tenant, asked_id="mine", key="k1", model="pirate", adapter="a" * 64, tier=Tier.FLEX
    )
    course = Course(asked)
    ledger = ledger_of(books)
    async with ledger.running():
        async with ledger.keep(course):
            course.started, course.worker = course.accepted + 0.25, WorkerId("w1")
            course.cached_tokens = 2
            course.produced(4)
            course.first_token = course.accepted + 0.5
            course.ended, course.outcome = course.accepted + 2.0, "STOP"
        (row,) = await rows(sessions, tenant)
    assert (row.id, row.asked_id, row.tenant) == (asked.job.request_id, "mine", tenant)
    assert (row.key, row.adapter, row.model, row.base_model) == ("k1", "a" * 64, "pirate", "tiny")
    assert (row.prompt_tokens, row.cached_tokens, row.completion_tokens) == (3, 2, 4)
    assert (row.queue_us, row.first_token_us, row.total_us) == (250_000, 500_000, 2_000_000)
    assert (row.outcome, row.worker, row.tier) == ("STOP", "w1", "flex")
    assert (row.charge, row.cost) == (3 + 2 * 4, "WeightedTokens(prompt=1.0, output=2.0)")


async def test_the_client_is_told_nothing_that_is_not_on_the_books(
    books: Books, tenant: str
) -> None:
    asked = accepted(tenant)
    async with keeping(books, Worker()) as gateway:
        pieces = gateway.stream(asked, seconds=60)
        await anext(pieces)
        assert asked.job.request_id in books.opened()
        async for piece in pieces:
            if piece.finish_reason is not None:
                assert asked.job.request_id in books.closed()
    assert books.closed() == [asked.job.request_id]


async def test_a_stream_that_is_closed_is_closed_on_the_books(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    worker = Worker()
    worker.go_on.clear()
    async with keeping(books, worker) as gateway:
        pieces = gateway.stream(accepted(tenant), seconds=60)
        await anext(pieces)
        await anext(pieces)
        await pieces.aclose()
    (row,) = await rows(sessions, tenant)
    assert (row.outcome, row.completion_tokens, row.charge) == ("CANCELLED", 2, 3 + 2 * 2)
    assert row.total_us is not None


async def test_a_caller_that_is_cancelled_leaves_no_row_open(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    worker = Worker()
    worker.go_on.clear()
    async with keeping(books, worker) as gateway:
        callers = [asyncio.create_task(told(gateway, accepted(tenant))) for _ in range(20)]
        await books.until(lambda: len(books.opened()) == 20)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    found = await rows(sessions, tenant)
    assert [row.outcome for row in found] == ["CANCELLED"] * 20


async def test_what_gave_nothing_costs_nothing(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    class Away(Worker):
        def lines(self, base: Fingerprint) -> Lines:
            return Lines()

    async with keeping(books, Away()) as gateway:
        with pytest.raises(Unavailable, match="no worker"):
            await told(gateway, accepted(tenant))
    (row,) = await rows(sessions, tenant)
    assert (row.outcome, row.charge) == ("UNAVAILABLE", 0.0)


async def test_requests_that_come_together_share_transactions(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    async with keeping(books, Worker()) as gateway:
        counts = await asyncio.gather(*(told(gateway, accepted(tenant)) for _ in range(300)))
    found = await rows(sessions, tenant)
    assert [row.completion_tokens for row in found] == counts == [3] * 300
    assert {row.outcome for row in found} == {"LENGTH"}
    assert len(books.committed) < 60


async def test_an_answer_that_is_lost_changes_nothing(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    books.answers_lost = 3
    async with keeping(books, Worker(), **QUICK) as gateway:
        counts = await asyncio.gather(*(told(gateway, accepted(tenant)) for _ in range(10)))
    found = await rows(sessions, tenant)
    assert books.answers_lost == 0
    assert [row.completion_tokens for row in found] == counts == [3] * 10
    assert sum(row.charge for row in found) == 10 * (3 + 2 * 3)


async def test_a_database_that_comes_back_gets_every_closing(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    worker = Worker()
    worker.go_on.clear()
    async with keeping(books, worker) as gateway:
        streams = [gateway.stream(accepted(tenant), seconds=60) for _ in range(5)]
        for stream in streams:
            await anext(stream)
        books.away = True
        worker.go_on.set()
        ends = [asyncio.create_task(_last(stream)) for stream in streams]
        await asyncio.sleep(0.3)  # some attempts
        assert not any(end.done() for end in ends)
        books.away = False
        assert await asyncio.gather(*ends) == [3] * 5
    assert [row.outcome for row in await rows(sessions, tenant)] == ["LENGTH"] * 5


async def test_what_cannot_come_on_the_books_is_refused(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    worker = Worker()
    books.away = True
    async with keeping(books, worker, open=0.1) as gateway:
        with pytest.raises(Unavailable, match="cannot be recorded"):
            await told(gateway, accepted(tenant))
        begun = worker.begun
        with pytest.raises(Unavailable, match="cannot be recorded"):
            await told(gateway, accepted(tenant))
        assert worker.begun == begun  # it is known to be away: nothing is begun
        books.away = False
        assert await _patiently(gateway, tenant) == 3
    found = await rows(sessions, tenant)
    assert [row.completion_tokens for row in found if row.outcome == "LENGTH"] == [3]
    assert all(row.outcome in ("LENGTH", "UNAVAILABLE") for row in found)
    assert sum(row.charge for row in found) == 3 + 2 * 3


async def test_who_gives_up_while_the_database_is_away_leaves_nothing(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    books.away = True
    async with keeping(books, Worker(), open=0.1) as gateway:
        with pytest.raises(Unavailable):
            await told(gateway, accepted(f"{tenant}-other"))
        callers = [asyncio.create_task(told(gateway, accepted(tenant))) for _ in range(20)]
        await asyncio.sleep(0)  # they have begun to wait
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        books.away = False
        assert await _patiently(gateway, tenant) == 3
    outcomes = [row.outcome for row in await rows(sessions, tenant)]
    assert [each for each in outcomes if each != "UNAVAILABLE"] == ["LENGTH"]  # none CANCELLED


async def test_no_more_wait_than_there_is_memory_for(
    books: Books, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    ledger = ledger_of(books)  # nobody writes
    for _ in range(3):
        await ledger.keep(Course(accepted(tenant))).__aenter__()
    with pytest.raises(Unavailable):
        await ledger.keep(Course(accepted(tenant))).__aenter__()


@pytest.mark.parametrize("seed", range(3))
async def test_the_books_agree_with_what_was_delivered_whatever_fails(
    sessions: Sessions, tenant: str, seed: int
) -> None:
    """Writes fail, answers are lost, and clients go away, all at random."""
    draw = random.Random(seed)
    books = Unreliable(sessions, draw)
    delivered: dict[str, int] = {}

    async def ask(gateway: Gateway) -> None:
        asked, patience = accepted(tenant), draw.choice([1, 2, 9, 9])
        await asyncio.sleep(draw.random())  # so that there are many transactions
        stream = gateway.stream(asked, seconds=60)
        with suppress(Unavailable):
            async with aclosing(stream) as pieces:
                async for piece in pieces:
                    got = delivered.get(asked.job.request_id, 0) + len(piece.tokens)
                    delivered[asked.job.request_id] = got
                    if got >= patience:
                        return

    async with keeping(books, Worker(), mark=0.001) as gateway:
        await asyncio.gather(*(ask(gateway) for _ in range(150)))
        books.trouble = 0.0
    found = await rows(sessions, tenant)
    assert {row.id: row.completion_tokens for row in found if row.charge} == delivered
    assert all(row.outcome is not None for row in found)
    assert sum(row.charge for row in found) == sum(3 + 2 * n for n in delivered.values())


async def test_what_was_delivered_is_marked(books: Books, sessions: Sessions, tenant: str) -> None:
    worker = Worker()
    worker.go_on.clear()
    async with keeping(books, worker, **QUICK) as gateway:
        pieces = gateway.stream(accepted(tenant), seconds=60)
        await anext(pieces)
        await anext(pieces)
        await books.until(lambda: any(each.completion_tokens == 2 for each in books.marked()))
        (row,) = await rows(sessions, tenant)
        assert (row.outcome, row.completion_tokens, row.charge) == (None, 2, 3 + 2 * 2)
        assert row.first_token_us is not None
        await pieces.aclose()


async def test_what_is_closed_stays_as_it_was_closed(
    books: Books, sessions: Sessions, tenant: str
) -> None:
    instance, (marked,) = await dead(books, tenant)
    end = replace(marked, completion_tokens=5, charge=13.0, outcome="STOP")
    await books.write(Batch(instance, closed=[end]))
    for late in (
        Batch(instance, opened=[marked]),
        Batch(instance, marked=[marked]),
        Batch(instance, closed=[replace(end, completion_tokens=9, charge=99.0)]),
    ):
        await books.write(late)
    leases = SqlLeases(sessions, SqlQuotaRepository(sessions))
    assert await leases.close_lost(instance, 7) == Left()
    assert await rows(sessions, tenant) == [end]


async def _last(stream: AsyncIterator[TextPiece]) -> int:
    return [piece.completion_tokens async for piece in stream][-1]


async def _patiently(gateway: Gateway, tenant: str) -> int:
    while True:
        try:
            return await told(gateway, accepted(tenant))
        except Unavailable:
            await asyncio.sleep(0.05)
