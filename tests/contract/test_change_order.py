"""Changes that are written at once: no id comes to be seen after a greater one."""

import asyncio

from services.adapter_store.repositories.changes import record
from services.core.changes import Change, ChangeKind
from services.core.types import TenantId
from services.runtime.db import writing
from tests.stores import Store, ask, fresh_tenant
from tests.watching import all_after, seen, watching


async def test_nobody_has_a_later_id_before_an_earlier_one_is_there(store: Store) -> None:
    first, second = (Change(kind=ChangeKind.SHARED, tenant=fresh_tenant()) for _ in range(2))
    before = await store.changes.newest()

    async def write() -> None:
        async with writing(store.sessions) as session:
            await record(session, second)

    async with watching(store, None) as told:
        async with writing(store.sessions) as session:
            await record(session, first)
            waiting = asyncio.create_task(write())
            await asyncio.sleep(0.3)
            assert not waiting.done()
        assert await seen(told, 2) == [first, second]
        await waiting
    assert await all_after(store, before, first.tenant) == [first]


async def test_those_who_write_at_once_are_told_of_in_the_order_of_their_commits(
    store: Store,
) -> None:
    """A reader that follows closely must not come past a smaller id that is still to appear."""
    owners = [fresh_tenant() for _ in range(6)]
    each = 12
    for owner in owners:
        await store.commit(owner, 1)
        await store.commit(owner, 2)

    async def write(owner: TenantId) -> None:
        for index in range(each):
            await store.lifecycle.promote(owner, "sql", str(1 + index % 2), ask())

    async with watching(store, None) as told:
        reading = asyncio.create_task(seen(told, len(owners) * each))
        await asyncio.gather(*(write(owner) for owner in owners))
        came = await reading
    for owner in owners:
        mine = [change.generation for change in came if change.tenant == owner]
        assert mine == list(range(1, each + 1))
