"""Requests to keep books on, and books whose database may fail."""

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from services.core.types import (
    FinishReason,
    RequestId,
    Tier,
    TokenPiece,
)
from services.gateway.course import Completion, Course, Job
from services.gateway.gateway import Gateway
from services.gateway.ledger import Batch, Ledger, Pace
from services.gateway.records import Record, record_of
from services.gateway.repositories.ledger import SqlLedger
from services.gateway.repositories.usage import SqlUsage
from services.gateway.usage import Filter
from services.policies.fairness.cost import WeightedTokens
from services.runtime.db import Sessions
from tests.completions import completion
from tests.paper_worker import PaperWorker

COST = WeightedTokens()
_NAMED = ("asked_id", "key", "model", "adapter", "tier")


def accepted(
    tenant: str,
    *,
    asked_id: str = "",
    key: str = "k",
    model: str = "tiny",
    adapter: str = "",
    tier: Tier = Tier.DEFAULT,
) -> Completion:
    request = f"{asked_id or secrets.token_hex(8)}.{secrets.token_hex(8)}"
    asked = completion(tenant, request=request, key=key, model=model, adapter=adapter)
    return replace(asked, tier=tier)


def record(tenant: str, *, accepted_us: int = 0, tokens: int = 0, **changes: Any) -> Record:
    """As it is once `tokens` were delivered; open unless it has an outcome."""
    named = {name: changes.pop(name) for name in _NAMED if name in changes}
    course = Course(accepted(tenant, **named))
    if tokens:
        course.produced(tokens)
    made = record_of(course, accepted_us, COST, outcome=changes.pop("outcome", None))
    return replace(made, **changes)


class Books(SqlLedger):
    """Remembers what was committed, and fails as it is told to."""

    away = False  # nothing is written
    answers_lost = 0  # so often it is written, and nobody hears of it

    def __init__(self, sessions: Any) -> None:
        super().__init__(sessions)
        self.committed: list[Batch] = []
        self._news = asyncio.Condition()

    async def write(self, batch: Batch) -> None:
        if self.away:
            raise OSError("the database is away")
        await super().write(batch)
        self.committed.append(batch)
        async with self._news:
            self._news.notify_all()
        if self.answers_lost:
            self.answers_lost -= 1
            raise OSError("the answer was lost")

    async def until(self, happened: Callable[[], bool]) -> None:
        """Looked at after every commit."""
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(happened)

    def opened(self) -> list[RequestId]:
        return [record.id for batch in self.committed for record in batch.opened]

    def closed(self) -> list[RequestId]:
        return [record.id for batch in self.committed for record in batch.closed]

    def marked(self) -> list[Record]:
        return [record for batch in self.committed for record in batch.marked]


class Unreliable(Books):
    """Fails at random, before it has written or after."""

    trouble = 0.4

    def __init__(self, sessions: Any, draw: random.Random) -> None:
        super().__init__(sessions)
        self._draw = draw

    async def write(self, batch: Batch) -> None:
        self.away = self._draw.random() < self.trouble / 2
        self.answers_lost = int(self._draw.random() < self.trouble / 2)
        await super().write(batch)


def ledger_of(books: Books, **pace: float) -> Ledger:
    return Ledger(books, instance=secrets.token_hex(8), cost=COST, pace=Pace(**pace))


class Worker(PaperWorker):
    """It gives these tokens, then waits for `go_on`, then gives the last."""

    def __init__(self, tokens: Sequence[int] = (0, 1)) -> None:
        super().__init__()
        self.tokens = tokens
        self.begun = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def follow(self, job: Job, seconds: float) -> AsyncGenerator[TokenPiece, None]:
        self.begun += 1
        for token in self.tokens:
            yield TokenPiece((token,))
        await self.go_on.wait()
        yield TokenPiece((0,), finish_reason=FinishReason.LENGTH)


@asynccontextmanager
async def keeping(books: Books, worker: Worker, **pace: float) -> AsyncIterator[Gateway]:
    """A gateway with these books."""
    ledger = ledger_of(books, **pace)
    nothing: Any = None
    async with ledger.running():
        yield Gateway(
            base_models=nothing,
            store=nothing,
            queue=worker.queue(),
            prompts=nothing,
            bookkeepers=[ledger],
        )


async def rows(sessions: Sessions, tenant: str) -> list[Record]:
    asked = Filter(tenant=tenant)
    return await SqlUsage(sessions).records(asked, after=None, newest_first=False, limit=1000)


async def dead(
    books: Books, tenant: str, *, requests: int = 1, tier: Tier = Tier.DEFAULT
) -> tuple[str, list[Record]]:
    """A gateway that died in the middle of requests, two tokens of each marked."""
    instance = secrets.token_hex(8)
    opened = [record(tenant, tier=tier) for _ in range(requests)]
    await books.write(Batch(instance, beat=7, opened=opened))
    marked = [replace(each, completion_tokens=2, charge=7.0) for each in opened]
    await books.write(Batch(instance, marked=marked))
    return instance, marked
