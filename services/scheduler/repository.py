"""Terms, wishes and moves in SQL. A leader that is none any more writes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.core.reports import Moved, MoveOutcome
from services.core.types import Digest, RequestId, WorkerId
from services.policies.migration.loads import Reason
from services.runtime.db import Base, Sessions, insert_unless_there, now_us, writing
from services.scheduler.migrations import Migration, MigrationState
from services.scheduler.models import MigrationRow, PinRow, TermRow, WorkerWishRow
from services.scheduler.terms import standby
from services.scheduler.wishes import Pin, Wishes, WorkerWish

THE_ONE = "scheduler"

R = TypeVar("R", bound=Base)


class SqlTerms:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def take_over(self, holder: str) -> int:
        """The next term, the holder's. Whoever writes under one before is done, or fails."""
        async with writing(self._sessions) as session:
            await insert_unless_there(
                session, TermRow, name=THE_ONE, term=0, holder="", since_us=now_us()
            )
            row = await session.get_one(TermRow, THE_ONE, with_for_update=True)
            row.term, row.holder, row.since_us = row.term + 1, holder[:255], now_us()
            return row.term


class SqlWishes:
    def __init__(self, sessions: Sessions, term: int) -> None:
        """`term`: of the leader that writes."""
        self._sessions = sessions
        self._term = term

    async def read(self) -> Wishes:
        async with self._sessions() as session:
            wishes = await session.scalars(select(WorkerWishRow))
            workers = {WorkerId(row.worker): WorkerWish(row.wish) for row in wishes}
            pins = [_pin(row) for row in await session.scalars(select(PinRow))]
        return Wishes(workers, {pin.adapter: pin for pin in pins})

    async def set_worker(self, worker: WorkerId, wish: WorkerWish, by: str) -> None:
        row = {"wish": wish.value, "wished_by": by[:255], "since_us": now_us()}
        async with writing(self._sessions) as session:
            await _require(session, self._term)
            await _put(session, WorkerWishRow, {"worker": worker}, row)

    async def drained(self, workers: Sequence[WorkerId]) -> None:
        """Who was to drain, and has, is cordoned, by whoever wished it to drain."""
        drain, cordon = WorkerWish.DRAIN.value, WorkerWish.CORDON.value
        async with writing(self._sessions) as session:
            await _require(session, self._term)
            await session.execute(
                update(WorkerWishRow)
                .where(WorkerWishRow.worker.in_(workers))
                .where(WorkerWishRow.wish == drain)
                .values(wish=cordon, since_us=now_us())
            )

    async def pin(self, pin: Pin, by: str) -> None:
        row = {"base_model": pin.base_model, "workers": pin.workers, "pinned_by": by[:255]}
        async with writing(self._sessions) as session:
            await _require(session, self._term)
            await _put(session, PinRow, {"adapter": pin.adapter}, row | {"since_us": now_us()})

    async def unpin(self, adapter: Digest) -> None:
        async with writing(self._sessions) as session:
            await _require(session, self._term)
            await session.execute(delete(PinRow).where(PinRow.adapter == adapter))


class SqlMigrations:
    def __init__(self, sessions: Sessions, term: int) -> None:
        self._sessions = sessions
        self._term = term

    async def add(self, migrations: Sequence[Migration]) -> list[Migration]:
        """As they are now: ordered. Raises Unavailable if another one leads."""
        ordered = [replace(migration, ordered_us=now_us()) for migration in migrations]
        async with writing(self._sessions) as session:
            await _require(session, self._term)
            session.add_all([_row(migration) for migration in ordered])
        return ordered

    async def settle(self, outcomes: Sequence[Moved]) -> None:
        """Once each; an outcome is true whoever hears it."""
        async with writing(self._sessions) as session:
            for outcome in outcomes:
                left = outcome.outcome is MoveOutcome.LEFT
                state = MigrationState.LEFT if left else MigrationState.VOID
                await session.execute(
                    update(MigrationRow)
                    .where(MigrationRow.id == outcome.move)
                    .where(MigrationRow.state != MigrationState.LEFT.value)
                    .values(state=state.value, tokens=outcome.tokens)
                )

    async def tidy(self, *, silent_us: int, kept_us: int) -> None:
        """Moves that nobody has spoken of for so long are void, and those so old are forgotten;
        so are wishes of workers to serve."""
        old, serve = now_us() - kept_us, WorkerWish.SERVE.value
        async with writing(self._sessions) as session:
            await _require(session, self._term)
            await session.execute(
                update(MigrationRow)
                .where(MigrationRow.state == MigrationState.ORDERED.value)
                .where(MigrationRow.ordered_us < now_us() - silent_us)
                .values(state=MigrationState.VOID.value)
            )
            await session.execute(delete(MigrationRow).where(MigrationRow.ordered_us < old))
            await session.execute(
                delete(WorkerWishRow)
                .where(WorkerWishRow.wish == serve)
                .where(WorkerWishRow.since_us < old)
            )

    async def page(
        self, worker: str, *, before: int | None, limit: int
    ) -> list[tuple[int, Migration]]:
        """The newest first, each with its number; `worker`: source or target, empty for all."""
        query = select(MigrationRow).order_by(MigrationRow.number.desc()).limit(limit)
        if before is not None:
            query = query.where(MigrationRow.number < before)
        if worker:
            query = query.where(or_(MigrationRow.source == worker, MigrationRow.target == worker))
        async with self._sessions() as session:
            return [(row.number, _migration(row)) for row in await session.scalars(query)]


async def _require(session: AsyncSession, term: int) -> None:
    """Until the end of the transaction nobody takes over. Raises Unavailable if somebody has."""
    row = await session.get(TermRow, THE_ONE, with_for_update={"read": True})
    if row is None or row.term != term:
        raise standby()


async def _put(
    session: AsyncSession, kind: type[R], key: dict[str, Any], values: dict[str, Any]
) -> None:
    if not await insert_unless_there(session, kind, **key, **values):
        (name, value), *_ = key.items()
        await session.execute(update(kind).where(getattr(kind, name) == value).values(**values))


def _pin(row: PinRow) -> Pin:
    return Pin(Digest(row.adapter), row.base_model, row.workers)


def _row(migration: Migration) -> MigrationRow:
    return MigrationRow(
        id=migration.id,
        request=migration.request[:255],
        adapter=migration.adapter or "",
        source=migration.source,
        target=migration.target,
        reason=migration.reason.value,
        state=migration.state.value,
        tokens=migration.tokens,
        gain_seconds=migration.gain_seconds,
        ordered_us=migration.ordered_us,
    )


def _migration(row: MigrationRow) -> Migration:
    return Migration(
        id=row.id,
        request=RequestId(row.request),
        adapter=Digest(row.adapter) if row.adapter else None,
        source=WorkerId(row.source),
        target=WorkerId(row.target),
        reason=Reason(row.reason),
        gain_seconds=row.gain_seconds,
        state=MigrationState(row.state),
        tokens=row.tokens,
        ordered_us=row.ordered_us,
    )
