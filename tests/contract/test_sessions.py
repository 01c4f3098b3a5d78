"""Connections: to a real PostgreSQL that goes away between two uses, to an SQLite that waits."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from services.runtime import db
from services.runtime.db import close_sessions, open_sessions, writing
from tests.databases import migrated


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with migrated("postgresql", tmp_path) as url:
        yield url


async def test_a_connection_that_broke_while_it_was_idle_is_made_anew(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "IDLE_SECONDS", 0.1)
    sessions, other = open_sessions(url), open_sessions(url)
    async with sessions() as session:
        process = await session.scalar(text("SELECT pg_backend_pid()"))
    async with other() as session:
        await session.execute(text("SELECT pg_terminate_backend(:id)"), {"id": process})
    await asyncio.sleep(0.2)
    async with sessions() as session:
        assert await session.scalar(text("SELECT pg_backend_pid()")) != process
    await close_sessions(sessions)
    await close_sessions(other)


async def test_who_gives_up_waiting_for_sqlite_leaves_it_as_it_was(tmp_path: Path) -> None:
    sessions = open_sessions(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    async with writing(sessions) as session:
        await session.execute(text("CREATE TABLE numbers (number INTEGER)"))

    async def add(number: int) -> None:
        async with writing(sessions) as session:
            await session.execute(text("INSERT INTO numbers VALUES (:number)"), {"number": number})

    async with writing(sessions) as session:
        await session.execute(text("INSERT INTO numbers VALUES (1)"))
        for number in range(10, 15):  # their threads wait in BEGIN
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(add(number), 0.05)
    await asyncio.gather(*(add(number) for number in range(2, 8)))
    async with sessions() as session:
        found = await session.scalars(text("SELECT number FROM numbers ORDER BY number"))
        assert list(found) == [1, 2, 3, 4, 5, 6, 7]
    await close_sessions(sessions)
