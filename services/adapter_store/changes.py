"""Following what changes: read from the table page by page, woken when there is more to read."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.core.changes import Change
from services.core.types import TenantId

PAGE = 100
HEARTBEAT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Told:
    """A change, and the cursor that stands behind it; none: there is nothing up to the cursor."""

    cursor: int
    change: Change | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Some changes, and the cursor behind them; `is_last` if there were no more."""

    told: Sequence[Told]
    cursor: int
    is_last: bool


class ChangeRepository(Protocol):
    async def newest(self) -> int:
        """The cursor behind all that happened."""
        ...

    async def after(self, cursor: int, viewer: TenantId | None, *, limit: int) -> ChangePage:
        """What the viewer (None: the operator) may see. Raises OutOfRange for a cursor that is
        older than what is kept, or that was never given out."""
        ...


class Bell:
    """Wakes whoever waits for changes in this process."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """Set when it rings next. Take it before reading, and nothing is missed."""
        return self._next

    def ring(self) -> None:
        rung, self._next = self._next, asyncio.Event()
        rung.set()


class Changes:
    def __init__(
        self,
        repository: ChangeRepository,
        bell: Bell,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        """`heartbeat_seconds`: how often a watcher is told that there is nothing, after a look."""
        self._repository = repository
        self._bell = bell
        self._heartbeat_seconds = heartbeat_seconds
        self._reading: tuple[int, asyncio.Event, asyncio.Task[ChangePage]] | None = None

    async def watch(self, viewer: TenantId | None, after: int | None) -> AsyncGenerator[Told, None]:
        """For good. Raises OutOfRange as ChangeRepository.after does."""
        cursor, is_due = after or 0, True  # to say that there is nothing more
        if after is None:
            cursor, is_due = await self._repository.newest(), False
            yield Told(cursor)
        while True:
            rung = self._bell.next
            page = await self._after(cursor, viewer, rung)
            for told in page.told:
                yield told
            cursor = page.cursor
            if not page.is_last:
                continue
            if is_due:
                yield Told(cursor)
            is_due = not await _happens(rung, self._heartbeat_seconds)

    async def _after(self, cursor: int, viewer: TenantId | None, rung: asyncio.Event) -> ChangePage:
        """Those who see everything, and are woken at once at one place, read once together."""
        if viewer is not None:
            return await self._repository.after(cursor, viewer, limit=PAGE)
        reading = self._reading
        if reading is None or reading[:2] != (cursor, rung) or reading[2].done():
            work = asyncio.ensure_future(self._repository.after(cursor, None, limit=PAGE))
            self._reading = reading = (cursor, rung, work)
        return await asyncio.shield(reading[2])


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
