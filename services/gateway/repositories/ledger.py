"""The ledger in SQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    delete,
    or_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.ledger import Batch
from services.gateway.models import InstanceRow, LedgerRow
from services.gateway.records import LOST, Record
from services.runtime.db import Sessions, on_sqlite, writing

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
            statements = _SQLITE if on_sqlite(session) else _POSTGRESQL
            connection = await session.connection()
            if batch.beat is not None:
                await connection.execute(
                    statements.beat, {"id": batch.instance, "beat": batch.beat}
                )
            await _each(connection, statements.opening, batch.instance, batch.opened)
            if batch.marked:
                await connection.execute(_MARK, [_mark(record) for record in batch.marked])
            await _each(connection, statements.closing, batch.instance, batch.closed)

    async def leave(self, instance: str) -> None:
        async with writing(self._sessions) as session:
            await session.execute(delete(InstanceRow).where(InstanceRow.id == instance))


async def _each(
    connection: AsyncConnection, statement: Any, instance: str, records: Sequence[Record]
) -> None:
    if records:
        rows = [{"instance": instance, **record.values()} for record in records]
        await connection.execute(statement, rows)


class _Statements:
    """Built once: that takes as long as to run them."""

    def __init__(self, insert: Any) -> None:
        beat, row = insert(InstanceRow.__table__), insert(LedgerRow.__table__)
        self.beat = beat.on_conflict_do_update(
            index_elements=["id"], set_={"beat": beat.excluded.beat}
        )
        self.opening = row.on_conflict_do_nothing(index_elements=["id"])
        # Also of what was never opened. What its own instance says of a request goes before what
        # others took to be lost.
        told = row.excluded
        found = and_(LedgerRow.outcome == LOST, LedgerRow.instance == told.instance)
        self.closing = row.on_conflict_do_update(
            index_elements=["id"],
            set_={name: told[name] for name in _CLOSED},
            where=or_(_OPEN, found),
        )


_SQLITE = _Statements(sqlite.insert)
_POSTGRESQL = _Statements(postgresql.insert)
_MARK = (
    update(LedgerRow)
    .where(LedgerRow.id == bindparam("of"), _OPEN)
    .values({name: bindparam(name) for name in _MARKED})
)


def _mark(record: Record) -> dict[str, Any]:
    return {"of": record.id, **{name: getattr(record, name) for name in _MARKED}}
