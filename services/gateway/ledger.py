"""The ledger: every request on the books once, whatever dies. Many requests share a transaction.

A request is opened on the books while a worker already begins with it; its client is told nothing
before that is committed, and not of its end before that is. Between, what was delivered is marked,
so that of a gateway that dies no more is lost than came since. All of it may be written again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Protocol

import structlog

from services.core.errors import ServingError, Unavailable
from services.core.types import RequestId
from services.gateway.course import Course
from services.gateway.records import Record, record_of
from services.policies.fairness.cost import Cost
from services.runtime.beside import beside
from services.runtime.db import now_us

log = structlog.get_logger()

MOST_AT_ONCE = 1000  # requests in a transaction
MOST_WAITING = 10_000  # requests that wait to be opened
LONGEST_PAUSE_SECONDS = 2.0  # between attempts
GATHER_SECONDS = 0.002
"""So late is written what came: together with what comes meanwhile, and after its worker was told
to begin, which takes longer than this for anything."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes, for an instance of the gateway."""

    instance: str
    beat: int | None = None
    opened: Sequence[Record] = ()
    marked: Sequence[Record] = ()
    closed: Sequence[Record] = ()

    @property
    def is_empty(self) -> bool:
        return self.beat is None and not (self.opened or self.marked or self.closed)


class LedgerRows(Protocol):
    async def write(self, batch: Batch) -> None:
        """All or nothing. Again is the same as once: what is there is not opened, and what is
        closed stays as it was closed, but that its own instance may yet find what was lost."""
        ...

    async def leave(self, instance: str) -> None:
        """It will beat no more. What it left, here or reserved, is found and closed by others."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds."""

    open: float = 5.0  # to wait for a request to be opened before it is refused
    close: float = 30.0  # to wait for it to be closed before its client is told nothing more
    mark: float = 1.0
    beat: float = 3.0
    write: float = 15.0  # a transaction that takes longer has failed
    drain: float = 5.0  # to write what is left at the end


class Ledger:
    """A Bookkeeper; `running` around all that it keeps."""

    def __init__(self, rows: LedgerRows, *, instance: str, cost: Cost, pace: Pace | None = None):
        self._rows = rows
        self._instance = instance
        self._cost = cost
        self._pace = pace or Pace()
        self._wanted = asyncio.Event()
        self._running: dict[RequestId, _Entry] = {}
        self._opening: dict[RequestId, _Entry] = {}
        self._closing: dict[RequestId, tuple[Record, _Entry]] = {}
        self._failures = 0
        self._mark_at = self._beat_at = 0.0

    def keep(self, course: Course) -> "_Entry":
        return _Entry(self, course)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes; at the end what is left, if there is a database."""
        async with beside(self._write_on()):
            try:
                yield
            finally:
                ends = [entry.closed for entry in self._running.values()]
                ends += [entry.closed for _, entry in self._closing.values()]
                if ends:
                    await asyncio.wait(ends, timeout=self._pace.drain)
        if self._closing:
            log.error("ledger_left_open", requests=list(self._closing))
        with suppress(Exception):  # then others find out by its silence
            await asyncio.wait_for(self._rows.leave(self._instance), self._pace.drain)

    async def begin(self, entry: "_Entry") -> None:
        if len(self._opening) >= MOST_WAITING:
            raise Unavailable("usage cannot be recorded at the moment; try again")
        self._opening[entry.id] = self._running[entry.id] = entry
        self._wanted.set()
        if self._failures:  # nothing is begun that may not come on the books
            try:
                await self.opened(entry)
            except BaseException as error:
                entry.is_refused = True
                self.end(entry, error.reason if isinstance(error, ServingError) else "CANCELLED")
                raise
        entry.course.before_first.append(entry.until_opened)

    async def opened(self, entry: "_Entry") -> None:
        """Raises Unavailable when that takes too long."""
        await asyncio.wait([entry.opened], timeout=self._pace.open)
        if not entry.opened.done():
            entry.is_refused = True  # if it may be on the books, it ends there
            raise Unavailable("usage cannot be recorded at the moment; try again")

    def end(self, entry: "_Entry", outcome: str) -> None:
        del self._running[entry.id]
        never_written = self._opening.pop(entry.id, None) is not None and not entry.was_tried
        if entry.is_refused and never_written:
            entry.closed.set_result(None)
            return
        record = record_of(entry.course, entry.accepted_us, self._cost, outcome=outcome)
        self._closing[entry.id] = record, entry
        self._wanted.set()

    async def closed(self, entry: "_Entry") -> None:
        """Raises Unavailable when that takes too long; it is closed nevertheless, in time."""
        await asyncio.wait([entry.closed], timeout=self._pace.close)
        if not entry.closed.done():
            raise Unavailable("usage cannot be recorded at the moment")

    async def _write_on(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.mark):
                    await self._wanted.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._wanted.clear()
            batch = self._gathered()
            if batch.is_empty:
                continue
            try:
                async with asyncio.timeout(self._pace.write):
                    await self._rows.write(batch)
            except Exception:  # it is tried until it is written
                log.exception("ledger_write_failed", waiting=len(self._closing))
                self._failures += 1
                await asyncio.sleep(min(LONGEST_PAUSE_SECONDS, 0.1 * self._failures))
                self._wanted.set()
            else:
                self._failures = 0
                self._settle(batch)

    def _gathered(self) -> Batch:
        """What waits. After a failure no openings: they would become closings, and more and more
        of them; what is due anyway shows whether the database is back."""
        now = time.monotonic()
        opening = [] if self._failures else list(islice(self._opening.values(), MOST_AT_ONCE))
        for entry in opening:
            entry.was_tried = True
        marks: list[Record] = []
        if now >= self._mark_at:
            self._mark_at = now + self._pace.mark
            marks = [self._record(entry) for entry in self._running.values() if entry.has_news]
        is_beat_due = self._failures > 0 or now >= self._beat_at
        return Batch(
            self._instance,
            beat=now_us() if is_beat_due else None,
            opened=[self._record(entry) for entry in opening],
            marked=marks,
            closed=[record for record, _ in islice(self._closing.values(), MOST_AT_ONCE)],
        )

    def _record(self, entry: "_Entry") -> Record:
        return record_of(entry.course, entry.accepted_us, self._cost, outcome=None)

    def _settle(self, batch: Batch) -> None:
        if batch.beat is not None:
            self._beat_at = time.monotonic() + self._pace.beat
        for record in batch.opened:
            entry = self._opening.pop(record.id, None)
            if entry is not None:
                entry.opened.set_result(None)
        for record in batch.marked:
            if record.id in self._running:
                self._running[record.id].marked = record.completion_tokens
        for record in batch.closed:
            self._closing.pop(record.id)[1].closed.set_result(None)
        if self._opening or self._closing:
            self._wanted.set()


class _Entry:
    """Around a request."""

    def __init__(self, ledger: Ledger, course: Course) -> None:
        loop = asyncio.get_running_loop()
        self.course = course
        self.id = course.completion.job.request_id
        self.accepted_us = now_us() - round((time.monotonic() - course.accepted) * 1e6)
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.was_tried = False  # to be opened: it may be on the books
        self.is_refused = False
        self.marked = 0  # tokens
        self._ledger = ledger

    @property
    def has_news(self) -> bool:
        return self.opened.done() and self.course.completion_tokens != self.marked

    async def until_opened(self) -> None:
        await self._ledger.opened(self)

    async def __aenter__(self) -> None:
        await self._ledger.begin(self)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ledger.end(self, self.course.outcome)
        is_gone = error is not None and not isinstance(error, Exception)
        if not (self.is_refused or is_gone):  # somebody waits to be told of its end
            await self._ledger.closed(self)
