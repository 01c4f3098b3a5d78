"""Connections to a real PostgreSQL that goes away between two uses."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from services.runtime import db
from services.runtime.db import close_sessions, open_sessions
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
