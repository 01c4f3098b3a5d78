"""Which of several schedulers may lead: whoever holds the database's lock."""

import fcntl
import math
from pathlib import Path
from typing import Any, Protocol, TextIO

import psycopg

from services.runtime.db import postgresql_arguments, sqlite_file

KEY = int.from_bytes(b"lorikeet", "big", signed=True)


class LockLost(Exception):
    """Somebody else may have it by now."""


class Lock(Protocol):
    seconds: float
    """How long it is certainly ours after it was taken or held."""

    async def take(self) -> bool:
        """Whether it is ours now. Raises LockLost if nobody can tell."""
        ...

    async def hold(self) -> None:
        """For some more time. Raises LockLost."""
        ...

    async def release(self) -> None: ...


def open_lock(url: str, *, seconds: float) -> Lock:
    """`seconds`: how long on PostgreSQL one that is silent keeps it."""
    arguments = postgresql_arguments(url)
    if arguments is not None:
        return PostgresLock(arguments, seconds=seconds)
    return FileLock(sqlite_file(url))


class PostgresLock:
    """An advisory lock of a session of its own, which the server ends if nothing comes for so long:
    one that hangs loses it like one that died."""

    def __init__(self, arguments: dict[str, Any], *, seconds: float) -> None:
        self._arguments = arguments | {"connect_timeout": max(2, math.ceil(seconds))}
        self._session: psycopg.AsyncConnection[Any] | None = None
        self.seconds = seconds

    async def take(self) -> bool:
        try:
            if self._session is None:
                self._session = await self._connect()
            found = await self._session.execute("SELECT pg_try_advisory_lock(%s)", (KEY,))
            row = await found.fetchone()
        except psycopg.Error as error:
            await self.release()
            raise LockLost(str(error)) from error
        return bool(row and row[0])

    async def hold(self) -> None:
        try:
            if self._session is None:
                raise LockLost("it was released")
            await self._session.execute("SELECT 1")
        except psycopg.Error as error:
            raise LockLost(str(error)) from error

    async def release(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        session = await psycopg.AsyncConnection.connect(**self._arguments, autocommit=True)
        milliseconds = int(self.seconds * 1000)
        await session.execute(f"SET idle_session_timeout = {milliseconds}")
        return session


class FileLock:
    """Beside the database of one machine; it is ours until the process ends."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}.scheduler-lock")
        self._file: TextIO | None = None
        self.seconds = math.inf

    async def take(self) -> bool:
        file = self._path.open("w")  # once, and then nobody waits
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    async def hold(self) -> None:
        if self._file is None:
            raise LockLost("it was released")

    async def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
