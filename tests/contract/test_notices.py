"""Stores that share a PostgreSQL hear of each other's changes, whatever happens to the line."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest
from sqlalchemy import text

from services.adapter_store.changes import Changes, Told
from services.adapter_store.repositories import notices
from services.adapter_store.repositories.notices import listen
from services.core.changes import ChangeKind
from services.core.types import TenantId
from services.runtime.beside import beside
from services.runtime.db import IN_MEMORY, close_sessions
from tests.databases import migrated
from tests.stores import BASE, Store, ask, fresh_tenant

NEVER_SECONDS = 3600.0  # between heartbeats: whatever arrives was not found by looking again


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with migrated("postgresql", tmp_path_factory.mktemp("db")) as url:
        yield url


@pytest.fixture
async def here(url: str) -> AsyncIterator[Store]:
    async with listening(url) as store:
        await store.base_models.register(BASE)
        yield store


@pytest.fixture
async def there(url: str) -> AsyncIterator[Store]:
    async with listening(url) as store:
        yield store


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Store]:
    store = Store(url)
    async with beside(listen(url, store.bell.ring)):
        await store.bell.next.wait()  # it is connected
        try:
            yield store
        finally:
            await close_sessions(store.sessions)


async def test_what_one_store_commits_wakes_the_watchers_of_another(
    here: Store, there: Store
) -> None:
    owner = fresh_tenant()
    changes = Changes(there.changes, there.bell, heartbeat_seconds=NEVER_SECONDS)
    async with aclosing(changes.watch(owner, None)) as told, asyncio.timeout(10):
        assert (await anext(told)).change is None
        for number in range(1, 6):
            coming = asyncio.ensure_future(anext(told))
            await here.commit(owner, number)
            assert _number(await coming) == number


async def test_a_line_that_breaks_is_mended_and_nothing_is_missed(
    here: Store, there: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "RECONNECT_SECONDS", 0.3)
    owner = fresh_tenant()
    changes = Changes(there.changes, there.bell, heartbeat_seconds=NEVER_SECONDS)
    async with aclosing(changes.watch(owner, None)) as told, asyncio.timeout(10):
        assert (await anext(told)).change is None
        coming = asyncio.ensure_future(anext(told))
        await _end_listeners(here)
        await here.commit(owner, 1)  # while nobody listens
        assert _number(await coming) == 1
        while await _listeners(here) < 2:  # noqa: ASYNC110  # the server knows, and does not say
            await asyncio.sleep(0.05)
        coming = asyncio.ensure_future(anext(told))
        await here.commit(owner, 2)
        assert _number(await coming) == 2


async def test_two_stores_that_write_at_once_are_heard_in_one_order(
    here: Store, there: Store
) -> None:
    """Both watchers, on either store, get every change, and in the same order."""
    owners = [fresh_tenant() for _ in range(4)]
    each = 10
    for owner in owners:
        await here.commit(owner, 1)
        await here.commit(owner, 2)

    async def write(store: Store, owner: TenantId) -> None:
        for index in range(each):
            await store.lifecycle.promote(owner, "sql", str(1 + index % 2), ask())

    async def read(store: Store, after: int) -> list[int]:
        changes = Changes(store.changes, store.bell, heartbeat_seconds=NEVER_SECONDS)
        cursors: list[int] = []
        async with aclosing(changes.watch(None, after)) as told:
            async for one in told:
                if one.change is not None and one.change.kind is ChangeKind.ALIAS_MOVED:
                    cursors.append(one.cursor)
                if len(cursors) == each * len(owners):
                    break
        return cursors

    start = await here.changes.newest()
    async with asyncio.timeout(60):
        readers = [asyncio.create_task(read(store, start)) for store in (here, there)]
        await asyncio.gather(
            *(write((here, there)[index % 2], owner) for index, owner in enumerate(owners))
        )
        one, other = await asyncio.gather(*readers)
    assert one == other == sorted(one)


async def test_sqlite_has_nobody_to_listen_to() -> None:
    await listen(IN_MEMORY, lambda: None)


def _number(told: Told) -> int:
    assert told.change is not None
    return told.change.number


async def _listeners(store: Store) -> int:
    async with store.sessions() as session:
        found = await session.scalar(text(f"SELECT count(*) FROM {_LISTENING}"))
        return int(found or 0)


async def _end_listeners(store: Store) -> None:
    async with store.sessions() as session:
        await session.execute(text(f"SELECT pg_terminate_backend(pid) FROM {_LISTENING}"))


_LISTENING = "pg_stat_activity WHERE query LIKE 'LISTEN %'"
