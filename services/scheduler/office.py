"""Whether this process leads, and everything that it knows while it does."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from services.core.clock import Clock
from services.scheduler.accounts import Accounts
from services.scheduler.demand import Demands
from services.scheduler.fleet import Fleet
from services.scheduler.lock import Lock, LockLost
from services.scheduler.loop import Loop
from services.scheduler.operations import Operations
from services.scheduler.repository import SqlMigrations
from services.scheduler.spread import Spread
from services.scheduler.terms import standby

log = structlog.get_logger()

BEATS = 5  # in the time that a silent leader keeps the lock
PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Reign:
    """What a leader knows; one that leads again begins with nothing but what is in SQL."""

    term: int
    fleet: Fleet
    accounts: Accounts
    demands: Demands
    spread: Spread
    loop: Loop
    operations: Operations
    migrations: SqlMigrations


class Office:
    """A reign ends by itself when the lock was not held for too long: a process that was stopped
    answers nothing when it goes on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reign: Reign | None = None
        self._until = -math.inf

    def reign(self) -> Reign:
        """Raises Unavailable if this process does not lead."""
        if self._reign is None or self._clock.now() >= self._until:
            raise standby()
        return self._reign

    def require(self, reign: Reign) -> None:
        """Raises Unavailable unless it still goes on."""
        if self.reign() is not reign:
            raise standby()

    @contextmanager
    def held(self, reign: Reign, until: float) -> Iterator[None]:
        self._reign, self._until = reign, until
        try:
            yield
        finally:
            self._reign = None
            reign.fleet.tell()  # whoever watches it looks, and is told that it is over

    def extend(self, until: float) -> None:
        self._until = until


class Terms(Protocol):
    async def take_over(self, holder: str) -> int: ...


class Election:
    """Tries to lead, leads, and tries again."""

    def __init__(
        self,
        lock: Lock,
        terms: Terms,
        office: Office,
        begun: Callable[[int], AbstractAsyncContextManager[Reign]],
        *,
        clock: Clock,
        holder: str,
    ) -> None:
        """`begun`: the reign of a term, with all that goes on in it."""
        self._lock = lock
        self._terms = terms
        self._office = office
        self._begun = begun
        self._clock = clock
        self._holder = holder
        self._pause = min(PAUSE_SECONDS, lock.seconds / BEATS)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    asked = self._clock.now()
                    if await self._lock.take():
                        await self._lead(asked)
                except LockLost as error:
                    log.warning("leadership_lost", why=str(error))
                except Exception:  # the database, whatever it does; it may come back
                    log.exception("leading_failed")
                    await self._lock.release()
                await asyncio.sleep(self._pause)
        finally:
            await self._lock.release()

    async def _lead(self, asked: float) -> None:
        """Until the lock is lost. Raises LockLost."""
        try:
            term = await self._terms.take_over(self._holder)
            async with self._begun(term) as reign:
                log.info("leads", term=term)
                with self._office.held(reign, asked + self._lock.seconds):
                    await self._hold()
        finally:
            await self._lock.release()

    async def _hold(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            asked = self._clock.now()
            try:
                async with asyncio.timeout(None if math.isinf(self._lock.seconds) else self._pause):
                    await self._lock.hold()
            except TimeoutError as error:
                raise LockLost("the database does not answer") from error
            self._office.extend(asked + self._lock.seconds)
