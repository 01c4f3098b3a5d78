"""Feeds control with what workers say, has plans made, and sends what comes of it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from services.core.errors import ServingError
from services.core.reports import Moved, MoveOrder, MoveOutcome, WorkerReport
from services.core.types import Destination, RequestId, WorkerId
from services.policies.migration.loads import Debts, PlannedMove, WorkerLoad
from services.scheduler.control import Control
from services.scheduler.fleet import Fleet
from services.scheduler.migrations import Migration
from services.scheduler.orders import Preload, TellSequences
from services.scheduler.wishes import WorkerWish

log = structlog.get_logger()

TICK_SECONDS = 0.25
TIDY_SECONDS = 60.0


class Planner(Protocol):
    """Runs in a thread: it may take seconds. Of its methods one is called at a time."""

    def plan(self, loads: Sequence[WorkerLoad], now: float, debts: Debts) -> list[PlannedMove]: ...
    def forget(self, request: RequestId) -> None:
        """It was not moved."""
        ...


class MigrationLog(Protocol):
    async def add(self, migrations: Sequence[Migration]) -> list[Migration]: ...
    async def settle(self, outcomes: Sequence[Moved]) -> None: ...
    async def tidy(self, *, silent_us: int, kept_us: int) -> None: ...


class Drains(Protocol):
    async def drained(self, workers: Sequence[WorkerId]) -> None:
        """Who was to drain is cordoned."""
        ...


@dataclass(frozen=True, slots=True)
class Keeping:
    """Of the log of moves: after which time one that nobody spoke of is void, and until when it is
    kept, in seconds."""

    silent: float = 60.0
    kept: float = 7 * 86400.0


@dataclass(slots=True)
class _Asked:
    """A round for the operator."""

    dry_run: bool
    answer: asyncio.Future[list[Migration]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Loop:
    def __init__(
        self,
        fleet: Fleet,
        control: Control,
        planner: Planner,
        migrations: MigrationLog,
        drains: Drains,
        *,
        debts: Callable[[], Debts],
        keeping: Keeping | None = None,
    ) -> None:
        self._fleet = fleet
        self._control = control
        self._planner = planner
        self._migrations = migrations
        self._drains = drains
        self._debts = debts
        self._keeping = keeping or Keeping()
        self._outcomes: list[Moved] = []
        self._asked: deque[_Asked] = deque()
        self._current: _Asked | None = None
        self._tidied_at = -TIDY_SECONDS
        self._woken = asyncio.Event()

    def reported(self, worker: WorkerId, report: WorkerReport) -> None:
        """Beside what the fleet keeps of it."""
        if report.sequences is not None:
            self._control.told(worker, report.sequences)
        self._control.ended(report.moved)
        self._outcomes += report.moved
        if report.moved or (report.sequences is not None and self._control.is_told):
            self.wake()

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()

    async def rebalance(self, *, dry_run: bool) -> list[Migration]:
        """What a round of its own orders, or would."""
        asked = _Asked(dry_run)
        self._asked.append(asked)
        self.wake()
        return await asked.answer

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    await self._step()
                except ServingError as error:
                    log.warning("round_failed", why=error.message)
                except Exception:  # what planners or databases do; the next round may go well
                    log.exception("round_failed")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_SECONDS):
                        await self._woken.wait()
                self._woken.clear()
        finally:
            for asked in [*self._asked, *filter(None, [self._current])]:
                asked.answer.cancel()

    async def _step(self) -> None:
        self._send()
        await self._settle()
        await self._note_drained()
        now, live = self._fleet.now(), self._fleet.live()
        if self._control.is_idle:
            if self._asked:
                self._current = self._asked.popleft()
                self._tell(self._control.ask(live, now, by_operator=True))
            elif self._control.is_due(live, now):
                self._tell(self._control.ask(live, now, by_operator=False))
        loads = self._control.loads(live, now)
        if loads is not None:
            await self._finish(loads, now)
        if now - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = now
            keeping = self._keeping
            silent, kept = int(keeping.silent * 1e6), int(keeping.kept * 1e6)
            await self._migrations.tidy(silent_us=silent, kept_us=kept)

    def _tell(self, workers: set[WorkerId]) -> None:
        for worker in workers:
            self._fleet.order(worker, TellSequences())

    async def _finish(self, loads: list[WorkerLoad], now: float) -> None:
        """The round that is underway."""
        asked, self._current = self._current, None
        try:
            planned = await asyncio.to_thread(self._planner.plan, loads, now, self._debts())
            dry_run = asked is not None and asked.dry_run
            moves = await (self._choose(planned) if dry_run else self._order(planned))
        except BaseException as error:
            if asked is not None and not asked.answer.done():
                asked.answer.set_exception(_told(error))
            raise
        finally:
            self._control.end_round()
        if asked is not None and not asked.answer.done():
            asked.answer.set_result(moves)

    async def _choose(self, planned: list[PlannedMove]) -> list[Migration]:
        for move in planned:
            self._planner.forget(move.request)
        return self._control.choose(planned, self._fleet.live())

    async def _order(self, planned: list[PlannedMove]) -> list[Migration]:
        """Nobody is told of a move that is not in the log."""
        chosen = self._control.orders(planned, self._fleet.live(), self._fleet.now())
        kept = {move.request for move in chosen}
        for move in planned:
            if move.request not in kept:
                self._planner.forget(move.request)
        if not chosen:
            return []
        try:
            ordered = await self._migrations.add(chosen)
        except BaseException:
            self._control.withdraw(chosen)
            raise
        self._control.hold(ordered)
        self._send()
        for worker, adapter in dict.fromkeys(self._control.wanted):
            self._fleet.order(worker, Preload(adapter))
        log.info("moves_ordered", moves=len(ordered))
        return ordered

    def _send(self) -> None:
        """Moves that may begin; those whose target is gone do not come about."""
        live = self._fleet.live()
        addresses = {each.identity.id: each.identity.address for each in live}
        for each in self._control.release(live, self._fleet.now()):
            if each.target in addresses:
                to = Destination(each.target, addresses[each.target])
                self._fleet.order(each.source, MoveOrder(each.id, (each.request,), to))
            else:
                void = Moved(each.id, each.request, MoveOutcome.GONE)
                self._control.ended([void])
                self._outcomes.append(void)

    async def _note_drained(self) -> None:
        """Of whom nothing else is wanted by now."""
        noted, wishes = tuple(self._fleet.drained), self._fleet.wishes.workers
        if noted:
            cordoned = [each for each in noted if wishes.get(each) is WorkerWish.CORDON]
            await self._drains.drained(cordoned)
            del self._fleet.drained[: len(noted)]
            log.info("workers_drained", workers=cordoned)

    async def _settle(self) -> None:
        if not self._outcomes:
            return
        outcomes = tuple(self._outcomes)
        await self._migrations.settle(outcomes)
        del self._outcomes[: len(outcomes)]
        for outcome in outcomes:
            if outcome.outcome is not MoveOutcome.LEFT:
                self._planner.forget(outcome.request)


def _told(error: BaseException) -> BaseException:
    """What somebody who waits for the answer hears."""
    return error if isinstance(error, Exception) else ServingError("the scheduler stopped")
