"""SQLite under asyncio: one way to its thread and back for each statement."""

import sqlite3
from collections.abc import Iterable
from functools import partial
from typing import Any

import aiosqlite
from aiosqlite.context import contextmanager
from sqlalchemy import Connection, Engine, event

WRITES = "lorikeet_writes"


def configure(engine: Engine) -> None:
    """Write-ahead logging, durable commits, foreign keys, and BEGIN IMMEDIATE where WRITES is."""
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)


async def connect(path: str, **options: Any) -> "_Connection":
    """SQLAlchemy's async_creator_fn; options as of sqlite3.connect."""
    options |= {"check_same_thread": False}
    connection = _Connection(lambda: sqlite3.connect(path, **options), iter_chunk_size=64)
    connection._thread.daemon = True  # as SQLAlchemy has it: a forgotten one never blocks the exit
    await connection
    return connection


class _Connection(aiosqlite.Connection):
    """Needs no thread for what waits for neither disk nor lock: a new cursor, the end of one, the
    end of a transaction that there was none of."""

    @contextmanager
    async def cursor(self) -> aiosqlite.Cursor:
        return _Cursor(self, self._conn.cursor())

    async def rollback(self) -> None:
        if self.in_transaction:
            await super().rollback()

    async def commit(self) -> None:
        if self.in_transaction:
            await super().commit()


class _Cursor(aiosqlite.Cursor):
    _rows: list[sqlite3.Row] | None = None  # of the statement that was executed to its end

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> "_Cursor":
        self._rows = None
        run = partial(_all, self._cursor, sql, parameters or ())
        self._rows = await self._execute(run)  # type: ignore[no-untyped-call]
        return self

    async def fetchall(self) -> Iterable[sqlite3.Row]:
        return self._rows or ()

    async def close(self) -> None:
        if self._rows is None:  # who waited for it was cancelled, and the thread is still at it
            await super().close()
        else:
            self._cursor.close()


def _all(cursor: sqlite3.Cursor, sql: str, parameters: Any) -> list[sqlite3.Row]:
    return cursor.execute(sql, parameters).fetchall()


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _set_pragmas(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # else the driver, not _begin, says when one begins
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "busy_timeout = 10000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
