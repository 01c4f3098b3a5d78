"""Watchers of a store's changes, who find nothing by looking again."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from services.adapter_store.changes import Changes, Told
from services.core.changes import Change
from services.core.types import TenantId
from tests.stores import Store

NEVER_SECONDS = 3600.0  # between heartbeats: whatever arrives was not found by looking again


def changes_of(store: Store) -> Changes:
    return Changes(store.changes, store.bell, heartbeat_seconds=NEVER_SECONDS)


@asynccontextmanager
async def watching(
    store: Store, viewer: TenantId | None, after: int | None = None
) -> AsyncIterator[AsyncGenerator[Told, None]]:
    """From now on, once it has said so."""
    changes = changes_of(store)
    async with aclosing(changes.watch(viewer, after)) as told, asyncio.timeout(10):
        if after is None:
            assert (await anext(told)).change is None
        yield told


async def seen(told: AsyncGenerator[Told, None], count: int) -> list[Change]:
    found: list[Change] = []
    while len(found) < count:
        one = await anext(told)
        if one.change is not None:
            found.append(one.change)
    return found


async def all_after(store: Store, cursor: int, viewer: TenantId | None) -> list[Change]:
    """What a watcher gets before it is up to date."""
    changes = changes_of(store)
    found: list[Change] = []
    async with aclosing(changes.watch(viewer, cursor)) as told:
        async for one in told:
            if one.change is None:
                break
            found.append(one.change)
    return found
