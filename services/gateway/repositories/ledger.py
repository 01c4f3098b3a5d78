"""The ledger in SQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    and_,
    bindparam,
    delete,
    exists,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.ledger import Batch
from services.gateway.models import InstanceRow, LedgerRow
from services.gateway.records import LOST, Record
from services.runtime.db import Sessions, on_sqlite, writing

_LEDGER = LedgerRow.__table__
_INSTANCES = InstanceRow.__table__
_MARKED = (
    "worker", "cached_tokens", "completion_tokens", "queue_us", "first_token_us", "charge",
)  # fmt: skip
_CLOSED = (*_MARKED, "total_us", "outcome")
_OPEN: ColumnElement[bool] = LedgerRow.outcome.is_(None)


class SqlLedger:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def write(self, batch: Batch) -> None:
        async with writing(self._sessions) as session:
            insert: Any = sqlite.insert if on_sqlite(session) else postgresql.insert
            connection = await session.connection()
            if batch.beat is not None:
                beat = insert(_INSTANCES).values(id=batch.instance, beat=batch.beat)
                await connection.execute(
                    beat.on_conflict_do_update(index_elements=["id"], set_={"beat": batch.beat})
                )
            opening = insert(_LEDGER).on_conflict_do_nothing(index_elements=["id"])
            await _each(connection, opening, batch.instance, batch.opened)
            if batch.marked:
                await connection.execute(_MARK, [_mark(record) for record in batch.marked])
            await _each(connection, _closing(insert(_LEDGER)), batch.instance, batch.closed)

    async def leave(self, instance: str) -> None:
        left = exists().where(LedgerRow.instance == instance, _OPEN)
        async with writing(self._sessions) as session:
            await session.execute(delete(InstanceRow).where(InstanceRow.id == instance, ~left))

    async def beats(self) -> dict[str, int]:
        async with self._sessions() as session:
            with_open = await session.scalars(select(LedgerRow.instance).where(_OPEN).distinct())
            beats = dict.fromkeys(with_open, 0)
            for row in await session.execute(select(InstanceRow.id, InstanceRow.beat)):
                beats[row.id] = row.beat
            return beats

    async def close_lost(self, instance: str, beat: int) -> int:
        seen = select(InstanceRow.beat).where(InstanceRow.id == instance).with_for_update()
        lost = update(LedgerRow).where(LedgerRow.instance == instance, _OPEN).values(outcome=LOST)
        async with writing(self._sessions) as session:
            if (await session.scalar(seen) or 0) != beat:
                return 0
            closed = await session.execute(lost)
            await session.execute(delete(InstanceRow).where(InstanceRow.id == instance))
            assert isinstance(closed, CursorResult)
            return closed.rowcount


async def _each(
    connection: AsyncConnection, statement: Any, instance: str, records: Sequence[Record]
) -> None:
    if records:
        rows = [{"instance": instance, **record.values()} for record in records]
        await connection.execute(statement, rows)


def _closing(inserted: Any) -> Any:
    """Also of what was never opened. What its own instance says goes before what others took to
    be lost."""
    told = inserted.excluded
    found = and_(LedgerRow.outcome == LOST, LedgerRow.instance == told.instance)
    return inserted.on_conflict_do_update(
        index_elements=["id"],
        set_={name: told[name] for name in _CLOSED},
        where=or_(_OPEN, found),
    )


_MARK = (
    update(LedgerRow)
    .where(LedgerRow.id == bindparam("of"), _OPEN)
    .values({name: bindparam(name) for name in _MARKED})
)


def _mark(record: Record) -> dict[str, Any]:
    return {"of": record.id, **{name: getattr(record, name) for name in _MARKED}}
