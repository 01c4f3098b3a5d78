"""SQL: one metadata for all services, sessions for SQLite and PostgreSQL."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, MetaData, Table, event, literal, make_url
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from services.runtime import sqlite

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_USED = "lorikeet_used"
IDLE_SECONDS = 1.0
IN_MEMORY = "sqlite+aiosqlite://"

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def open_sessions(url: str) -> async_sessionmaker[AsyncSession]:
    """Sessions on sqlite+aiosqlite:// or postgresql+psycopg://; what is committed is durable.

    Outside of `writing` every statement is a transaction of its own and sees what is committed when
    it begins: a BEGIN and a ROLLBACK would cost as much as the one look-up between them.
    A bare sqlite+aiosqlite:// is in memory, with one connection that its users take turns with.
    """
    if url.startswith("sqlite"):
        one = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
        engine = create_async_engine(
            url,
            connect_args={"async_creator_fn": sqlite.connect},
            **(one if url == IN_MEMORY else {}),
        )
        sqlite.configure(engine.sync_engine)
    else:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        event.listen(engine.sync_engine, "checkin", _note_use)
        event.listen(engine.sync_engine, "checkout", partial(_ping_if_idle, engine.sync_engine))
    return async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def writing(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """A transaction that writes. On SQLite nobody else does until its end, so that what it has
    read stays true; on PostgreSQL it locks the rows that it decides by."""
    async with sessions.begin() as session:
        on_postgresql = {} if on_sqlite(session) else {"isolation_level": "READ COMMITTED"}
        await session.connection(execution_options={sqlite.WRITES: True, **on_postgresql})
        yield session


def table_of(row: type[Base]) -> Table:
    table = row.__table__
    assert isinstance(table, Table)
    return table


async def close_sessions(sessions: async_sessionmaker[AsyncSession]) -> None:
    await sessions.kw["bind"].dispose()


def when_committed(session: AsyncSession, call: Callable[[], None]) -> None:
    """`call` once the session's transaction is durable; not at all if it is rolled back."""
    event.listen(session.sync_session, "after_commit", lambda _: call(), once=True)


def on_sqlite(session: AsyncSession) -> bool:
    return session.get_bind().dialect.name == "sqlite"


async def insert_unless_there(session: AsyncSession, row: type[Base], **values: Any) -> bool:
    """Of those who insert the same key at once one succeeds (True), and the others do nothing."""
    insert: Any = sqlite_dialect.insert if on_sqlite(session) else postgresql.insert
    statement = insert(row).values(**values).on_conflict_do_nothing().returning(literal(1))
    return await session.scalar(statement) is not None


def postgresql_arguments(url: str) -> dict[str, Any] | None:
    """For a connection of psycopg's own, beside the pool; None if this is no PostgreSQL."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        return None
    _, arguments = parsed.get_dialect()().create_connect_args(parsed)
    return dict(arguments)


def sqlite_file(url: str) -> Path:
    """Of a SQLite database that is not in memory."""
    database = make_url(url).database
    if not database:
        raise ValueError(f"{url} names no file")
    return Path(database)


def now_us() -> int:
    """Microseconds since 1970, as all tables keep their times."""
    return us_of(datetime.now(UTC))


def us_of(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def time_of(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _note_use(_: Any, record: ConnectionPoolEntry) -> None:
    record.info[_USED] = time.monotonic()


def _ping_if_idle(engine: Engine, connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    """The server may have gone since; to ask each time would cost as much as a look-up does."""
    if time.monotonic() - record.info.get(_USED, time.monotonic()) > IDLE_SECONDS:
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error
