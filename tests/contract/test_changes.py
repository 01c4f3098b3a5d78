"""What watchers are told, in memory, on SQLite and on PostgreSQL alike."""

import asyncio
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from services.adapter_store.changes import PAGE, Bell, ChangePage, Changes, Told
from services.adapter_store.records import Split
from services.core.changes import Change, ChangeKind
from services.core.errors import OutOfRange, ServingError
from services.core.types import Digest, TenantId
from tests.stores import BASE, Store, ask, fresh_tenant
from tests.watching import all_after, changes_of, seen, watching

NOW = timedelta(microseconds=-1)


async def test_every_change_is_told_once_and_in_order(store: Store) -> None:
    owner, friend = fresh_tenant(), fresh_tenant()
    always = timedelta(days=1)
    async with watching(store, None) as told:
        for content in (1, 2, 2):  # the same weights again are no change
            await store.commit(owner, content)
        await store.lifecycle.promote(owner, "sql", "1", ask())
        await store.lifecycle.promote(owner, "sql", "1", ask())
        for _ in range(2):
            await store.lifecycle.canary(
                owner, "sql", "", to="2", percent=10, split=Split.REQUEST, ask=ask()
            )
        await store.lifecycle.promote(owner, "sql", "", ask())
        await store.lifecycle.rollback(owner, "sql", "", ask())
        await store.lifecycle.delete_alias(owner, "sql", "production", ask())
        for _ in range(2):
            await store.sharing.share(owner, "sql", friend)
        for _ in range(2):
            await store.sharing.unshare(owner, "sql", friend)
        for _ in range(2):
            await store.versions.delete_version(owner, "sql", 1)
        for _ in range(2):
            await store.versions.undelete_version(owner, "sql", 1, within=always)
        for _ in range(2):
            await store.versions.delete_adapter(owner, "sql")
        for _ in range(2):
            await store.versions.undelete_adapter(owner, "sql", within=always)
        for _ in range(2):
            await store.base_models.register(replace(BASE, name=f"of-{owner}"))
        came = await seen(told, 14)
    one, two = Digest(f"{1:064x}"), Digest(f"{2:064x}")
    version = Change(
        kind=ChangeKind.VERSION_ADDED,
        tenant=owner, adapter="sql", number=1, digest=one, base_model="tiny",
    )  # fmt: skip
    moved = Change(
        kind=ChangeKind.ALIAS_MOVED, tenant=owner, adapter="sql", alias="production",
    )  # fmt: skip
    to_one = replace(moved, number=1, digest=one)
    whole = Change(kind=ChangeKind.ADAPTER_DELETED, tenant=owner, adapter="sql")
    assert came == [
        version,
        replace(version, number=2, digest=two),
        replace(to_one, generation=1),
        replace(to_one, generation=2, previous_digest=one, canary_number=2, canary_digest=two),
        replace(moved, generation=3, number=2, digest=two, previous_digest=one),
        replace(to_one, generation=4, previous_digest=two),
        replace(moved, generation=5, previous_digest=one),
        replace(whole, kind=ChangeKind.SHARED, shared_with=friend),
        replace(whole, kind=ChangeKind.UNSHARED, shared_with=friend),
        replace(version, kind=ChangeKind.VERSION_DELETED),
        replace(version, kind=ChangeKind.VERSION_UNDELETED),
        whole,
        replace(whole, kind=ChangeKind.ADAPTER_UNDELETED),
        Change(kind=ChangeKind.BASE_MODEL_REGISTERED, base_model=f"of-{owner}"),
    ]


async def test_a_watcher_is_woken_by_a_commit_and_by_nothing_else(store: Store) -> None:
    owner = fresh_tenant()
    await store.commit(owner, 1)
    async with watching(store, owner) as told:
        coming = asyncio.ensure_future(anext(told))
        with suppress(ServingError):
            await store.lifecycle.promote(owner, "sql", "9", ask())
        await asyncio.sleep(0.05)
        assert not coming.done()
        await store.lifecycle.promote(owner, "sql", "1", ask())
        change = (await coming).change
    assert change is not None
    assert change.kind is ChangeKind.ALIAS_MOVED


async def test_a_change_that_is_undone_is_not_told(store: Store) -> None:
    owner = fresh_tenant()
    before = await store.changes.newest()

    def stop(*given: object) -> None:
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        # The last step of a commit fails, after its change was recorded.
        patch.setattr("services.adapter_store.repositories.uploads.version_of", stop)
        with pytest.raises(InterruptedError):
            await store.commit(owner, 1)
    assert await all_after(store, before, owner) == []
    assert await store.versions.newest(owner, "sql") is None
    await store.commit(owner, 1)
    assert len(await all_after(store, before, owner)) == 1


async def test_a_tenant_sees_its_own_and_what_is_shared_with_it_while_it_is(store: Store) -> None:
    owner, friend, stranger = fresh_tenant(), fresh_tenant(), fresh_tenant()
    start = await store.changes.newest()
    for content in (1, 2):
        await store.commit(owner, content)
        await store.commit(owner, content, "private")
    await store.lifecycle.promote(owner, "sql", "1", ask())
    await store.sharing.share(owner, "sql", stranger)
    await store.sharing.share(owner, "sql", friend)
    await store.lifecycle.promote(owner, "sql", "2", ask())
    await store.lifecycle.promote(owner, "private", "2", ask())
    await store.commit(friend, 3)

    async def shown(viewer: TenantId) -> list[tuple[ChangeKind | None, str, int]]:
        changes = await all_after(store, start, viewer)
        return [(c.kind, f"{c.tenant}/{c.adapter}", c.number) for c in changes]

    shared = (ChangeKind.SHARED, f"{owner}/sql", 0)
    promoted = (ChangeKind.ALIAS_MOVED, f"{owner}/sql", 2)
    assert await shown(friend) == [
        shared,
        promoted,
        (ChangeKind.VERSION_ADDED, f"{friend}/sql", 1),
    ]
    assert await shown(stranger) == [shared, promoted]
    assert await shown(fresh_tenant()) == []
    assert {change.tenant for change in await all_after(store, start, owner)} == {owner}
    await store.sharing.unshare(owner, "sql", stranger)
    await store.lifecycle.promote(owner, "sql", "1", ask())
    assert await shown(stranger) == [shared, (ChangeKind.UNSHARED, f"{owner}/sql", 0)]
    assert len(await shown(friend)) == 4
    await store.sharing.share(owner, "private", "*")
    everybody = await shown(fresh_tenant())
    assert everybody == [(ChangeKind.SHARED, f"{owner}/private", 0)]
    await store.sharing.unshare(owner, "private", "*")


async def test_a_cursor_goes_on_where_it_was_also_over_pages(store: Store) -> None:
    owner, other = fresh_tenant(), fresh_tenant()
    await store.commit(owner, 1)
    await store.commit(other, 1)
    await store.commit(owner, 2)
    start = await store.changes.newest()
    many = 2 * PAGE + 3
    for index in range(many):
        await store.lifecycle.promote(owner, "sql", str(1 + index % 2), ask())
        if index % 50 == 0:
            await store.lifecycle.promote(other, "sql", "1", ask())
    came: list[int] = []
    cursor, is_behind = start, True
    while is_behind:  # a reader that breaks off again and again
        async with watching(store, owner, cursor) as told:
            for _ in range(70):
                one = await anext(told)
                cursor, is_behind = one.cursor, one.change is not None
                if one.change is None:
                    break
                came.append(one.change.generation)
    assert came == list(range(1, many + 1))
    assert cursor == await store.changes.newest()


async def test_what_is_kept_no_longer_cannot_be_asked_for(store: Store) -> None:
    owner = fresh_tenant()
    start = await store.changes.newest()
    for content in (1, 2, 3):
        await store.commit(owner, content)
    newest = await store.changes.newest()
    assert await store.changes.purge(older_than=timedelta(days=1), limit=1000) == 0
    while await store.changes.purge(older_than=NOW, limit=1000):
        pass
    assert await store.changes.newest() == newest  # so that no id is given out twice
    assert await all_after(store, newest, None) == []
    for cursor in (start, newest + 1):  # the second was never given out
        with pytest.raises(OutOfRange):
            await all_after(store, cursor, owner)
    await store.commit(owner, 4)
    assert [change.number for change in await all_after(store, newest, owner)] == [4]


async def test_those_who_see_all_and_are_woken_at_once_read_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, read, reads = changes_of(store), store.changes.after, []

    async def counted(cursor: int, viewer: TenantId | None, *, limit: int) -> ChangePage:
        reads.append(cursor)
        return await read(cursor, viewer, limit=limit)

    start = await store.changes.newest()
    async with AsyncExitStack() as stack:
        watchers = [
            await stack.enter_async_context(aclosing(changes.watch(None, start))) for _ in range(5)
        ]
        for watcher in watchers:
            assert await anext(watcher) == Told(start)
        waiting = [asyncio.ensure_future(anext(watcher)) for watcher in watchers]
        await asyncio.sleep(0)
        monkeypatch.setattr(store.changes, "after", counted)
        for content in (1, 2):  # also the second time, with what was read before at hand
            await store.commit(fresh_tenant(), content)
            told = await asyncio.gather(*waiting)
            assert {one.cursor for one in told} == {start + content}
            waiting = [asyncio.ensure_future(anext(watcher)) for watcher in watchers]
        assert reads == [start, start + 1]
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_one_who_hears_nothing_is_told_so(store: Store) -> None:
    changes = Changes(store.changes, store.bell, heartbeat_seconds=0.01)
    start = await store.changes.newest()
    async with aclosing(changes.watch(None, start)) as told:
        for _ in range(3):
            assert await anext(told) == Told(start)


async def test_one_who_was_not_woken_finds_it_by_looking(store: Store) -> None:
    changes = Changes(store.changes, Bell(), heartbeat_seconds=0.01)
    start = await store.changes.newest()
    async with aclosing(changes.watch(None, start)) as told, asyncio.timeout(10):
        assert await anext(told) == Told(start)
        await store.commit(fresh_tenant(), 1)
        assert len(await seen(told, 1)) == 1
