"""What is kept of base models, uploads and versions: in memory, on SQLite and on PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from services.adapter_store.records import VersionFilter
from services.core.errors import (
    FailedPrecondition,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from services.core.types import Digest, Fingerprint, TenantId
from tests.stores import BASE, Store, ask, fresh_tenant, upload, version

ALL = VersionFilter()


async def test_a_base_model_comes_back_as_it_was(store: Store) -> None:
    found = await store.base_models.base_model("tiny")
    assert found is not None
    assert replace(found, created=None) == BASE
    assert [model.name for model in await store.base_models.base_models()] == ["tiny"]
    assert await store.base_models.base_model("large") is None


async def test_a_base_model_keeps_its_weights_but_may_learn_names(
    store: Store,
) -> None:
    renamed = await store.base_models.register(replace(BASE, also_known_as=("org/Tiny", "tiny-1")))
    assert renamed.is_called("TINY-1")
    with pytest.raises(FailedPrecondition, match="other weights"):
        await store.base_models.register(replace(BASE, fingerprint=Fingerprint("0" * 64)))
    await store.base_models.register(BASE)


async def test_versions_count_up_and_the_same_content_is_the_same_version(store: Store) -> None:
    tenant = fresh_tenant()
    for content in (1, 2, 2, 1):
        committed = await store.commit(tenant, content)
        assert committed.parameter_count == 6_000_000_000
    found = await store.versions.versions(tenant, "sql", ALL, before=None, limit=9)
    assert [(v.number, v.digest[-1]) for v in found] == [(3, "1"), (2, "2"), (1, "1")]
    assert await store.versions.newest(tenant, "sql") == found[0] == committed
    assert await store.versions.numbered(tenant, "sql", 2) == found[1]
    assert await store.versions.numbered(tenant, "sql", 4) is None
    assert len(await store.versions.by_digest(tenant, "sql", "0" * 40)) == 3
    assert await store.versions.by_digest(tenant, "sql", "%") == []
    details = await store.versions.details(found[0])
    assert (details.config_json, details.ranks) == ('{"r": 8}', {"0.q": 8})


async def test_versions_are_listed_by_what_they_are(store: Store) -> None:
    tenant = fresh_tenant()
    for content, label in enumerate(["a", "b", "a", "b", "a"], start=1):
        labels = {"kind": label, "even": str(content % 2 == 0)}
        made = await store.commit(
            tenant, content, labels=labels, metrics={"f1": 0.5}, job="j", parents=("b" * 64,)
        )
        assert made.provenance.labels["kind"] == label
        assert (made.provenance.job, made.provenance.parents) == ("j", ("b" * 64,))
        assert made.provenance.metrics == {"f1": 0.5}

    async def numbers(shown: VersionFilter, before: int | None = None, limit: int = 9) -> list[int]:
        found = await store.versions.versions(tenant, "sql", shown, before=before, limit=limit)
        return [version.number for version in found]

    assert await numbers(VersionFilter(labels={"kind": "a"})) == [5, 3, 1]
    assert await numbers(VersionFilter(labels={"kind": "a", "even": "True"})) == []
    assert await numbers(VersionFilter(labels={"kin%": "a"})) == []
    assert await numbers(VersionFilter(base_model="tiny"), before=4, limit=2) == [3, 2]
    assert await numbers(VersionFilter(base_model="large")) == []
    await store.versions.delete_version(tenant, "sql", 3)
    assert await numbers(ALL) == [5, 4, 2, 1]
    assert await numbers(VersionFilter(with_deleted=True)) == [5, 4, 3, 2, 1]


async def test_tenants_do_not_see_each_other(store: Store) -> None:
    ours, theirs = fresh_tenant(), fresh_tenant()
    made = await store.commit(theirs, 7, "mine")
    assert await store.versions.newest(ours, "mine") is None
    assert await store.versions.versions(ours, "mine", ALL, before=None, limit=9) == []
    assert [v.adapter for v in await store.versions.adapters(theirs, after="", limit=9)] == ["mine"]
    assert await store.versions.adapters(ours, after="", limit=9) == []
    assert await store.versions.count_adapters(theirs) == 1
    assert await store.versions.count_adapters(ours) == 0
    assert await store.versions.may_read(theirs, made.digest)
    assert not await store.versions.may_read(ours, made.digest)
    for call in (
        store.versions.delete_version(ours, "mine", 1),
        store.versions.undelete_version(ours, "mine", 1, within=timedelta(days=1)),
        store.versions.delete_adapter(ours, "mine"),
        store.versions.undelete_adapter(ours, "mine", within=timedelta(days=1)),
        store.sharing.share(ours, "mine", "anybody"),
        store.sharing.unshare(ours, "mine", "anybody"),
    ):
        with pytest.raises(ModelNotFound):
            await call
    assert await store.meant(theirs, "mine") == 1


async def test_adapters_are_listed_by_name_page_by_page(store: Store) -> None:
    tenant = fresh_tenant()
    for content, name in enumerate(("b", "a", "c", "a")):
        await store.commit(tenant, content, name)
    first = await store.versions.adapters(tenant, after="", limit=2)
    rest = await store.versions.adapters(tenant, after="b", limit=2)
    assert [(v.adapter, v.number) for v in first] == [("a", 2), ("b", 1)]
    assert [v.adapter for v in rest] == ["c"]


async def test_an_upload_is_found_again_and_ends_with_its_version(store: Store) -> None:
    tenant = fresh_tenant()
    opened = await store.uploads.open_upload(upload("x", tenant, 1), most_uploads=2)
    again = await store.uploads.open_upload(upload("x", tenant, 2), most_uploads=2)
    assert again.id != opened.id  # other content: another upload
    same = await store.uploads.open_upload(upload("x", tenant, 1), most_uploads=2)
    assert same.id == opened.id
    with pytest.raises(ResourceExhausted):
        await store.uploads.open_upload(upload("x", tenant, 3), most_uploads=2)
    with pytest.raises(Unavailable, match="collected"):  # nobody keeps its weights
        await store.uploads.commit(opened.id, version("x", 7_000_001, tenant))
    await store.commit(fresh_tenant(), 1)
    done = await store.uploads.commit(opened.id, version("x", 1, tenant))
    assert await store.uploads.upload(opened.id) == (opened, done)
    await store.uploads.open_upload(upload("x", tenant, 3), most_uploads=2)
    await store.uploads.drop_upload(again.id)
    assert await store.uploads.upload(again.id) is None
    with pytest.raises(NotFound):
        await store.uploads.commit(again.id, version("x", 1, tenant))


async def test_versions_that_race_get_numbers_of_their_own(store: Store) -> None:
    tenant = fresh_tenant()
    made = await asyncio.gather(*(store.commit(tenant, content) for content in range(8)))
    assert sorted(version.number for version in made) == list(range(1, 9))


async def test_what_is_deleted_is_unknown_until_it_comes_back(
    store: Store, tenant: TenantId
) -> None:
    day, at_once = timedelta(days=1), timedelta(0)
    await store.lifecycle.promote(tenant, "sql", "2", ask())
    await store.lifecycle.set_alias(tenant, "sql", "old", "1", ask())
    for number in (1, 2):
        with pytest.raises(FailedPrecondition, match=f"points to version {number}"):
            await store.versions.delete_version(tenant, "sql", number)
    gone = await store.versions.delete_version(tenant, "sql", 3)
    assert gone.deleted is not None
    assert (await store.versions.delete_version(tenant, "sql", 3)).deleted == gone.deleted
    for reference in ("sql@3", f"sql@{3:064x}"):
        with pytest.raises(ModelNotFound):
            await store.meant(tenant, reference)
    assert not await store.versions.may_read(tenant, Digest(f"{3:064x}"))
    with pytest.raises(ModelNotFound):
        await store.lifecycle.promote(tenant, "sql", "3", ask())
    with pytest.raises(FailedPrecondition, match="too long ago"):
        await store.versions.undelete_version(tenant, "sql", 3, within=at_once)
    assert (await store.versions.undelete_version(tenant, "sql", 3, within=day)).deleted is None
    assert await store.meant(tenant, "sql@3") == 3

    await store.versions.delete_adapter(tenant, "sql")
    await store.versions.delete_adapter(tenant, "sql")
    for reference in ("sql", "sql@1", "sql@old", f"sql@{3:064x}"):
        with pytest.raises(ModelNotFound):
            await store.meant(tenant, reference)
    with pytest.raises(ModelNotFound):
        await store.lifecycle.rollback(tenant, "sql", "", ask())
    with pytest.raises(FailedPrecondition, match="undelete it"):
        await store.commit(tenant, 9)
    assert await store.versions.adapters(tenant, after="", limit=9) == []
    assert await store.versions.count_adapters(tenant) == 0
    with pytest.raises(FailedPrecondition, match="too long ago"):
        await store.versions.undelete_adapter(tenant, "sql", within=at_once)
    await store.versions.undelete_adapter(tenant, "sql", within=day)
    assert await store.meant(tenant, "sql") == 2
    assert await store.meant(tenant, "sql@old") == 1


async def test_no_alias_comes_to_point_at_what_is_being_deleted(store: Store) -> None:
    for _ in range(5):
        tenant = fresh_tenant()
        for content in (1, 2):
            await store.commit(tenant, content)
        await store.lifecycle.promote(tenant, "sql", "2", ask())
        await asyncio.gather(
            store.lifecycle.promote(tenant, "sql", "1", ask()),
            store.versions.delete_version(tenant, "sql", 1),
            return_exceptions=True,
        )
        meant = await store.meant(tenant, "sql")
        there = await store.versions.numbered(tenant, "sql", 1)
        assert (meant, there is None) in {(1, False), (2, True)}


async def test_a_shared_adapter_is_its_owners_name_for_those_it_is_shared_with(
    store: Store, tenant: TenantId
) -> None:
    friend, stranger = fresh_tenant(), fresh_tenant()
    reference = f"{tenant}/sql"
    assert await store.meant(tenant, reference) == 5

    async def may(caller: TenantId) -> bool:
        try:
            return await store.meant(caller, reference) == 5
        except ModelNotFound:
            return False

    await store.sharing.share(tenant, "sql", friend)
    await store.sharing.share(tenant, "sql", friend)
    assert [await may(caller) for caller in (friend, stranger)] == [True, False]
    for own in ("sql", "sql@5"):  # it is not theirs
        with pytest.raises(ModelNotFound):
            await store.meant(friend, own)
    with pytest.raises(ModelNotFound):
        await store.lifecycle.promote(friend, "sql", "1", ask())
    assert not await store.versions.may_read(friend, Digest(f"{5:064x}"))
    await store.sharing.share(tenant, "sql", "*")
    assert await store.sharing.shares(tenant, "sql") == ["*", friend]
    assert await may(stranger)
    (listed,) = [
        v
        for v in await store.versions.shared(friend, after=("", ""), limit=999)
        if v.tenant == tenant
    ]
    assert (listed.adapter, listed.number) == ("sql", 5)
    assert tenant not in {
        v.tenant for v in await store.versions.shared(friend, after=(tenant, "sql"), limit=999)
    }
    assert tenant not in {
        v.tenant for v in await store.versions.shared(tenant, after=("", ""), limit=999)
    }
    await store.versions.delete_adapter(tenant, "sql")
    assert not await may(friend)
    await store.versions.undelete_adapter(tenant, "sql", within=timedelta(days=1))
    await store.sharing.unshare(tenant, "sql", "*")
    assert [await may(caller) for caller in (friend, stranger)] == [True, False]
    await store.sharing.unshare(tenant, "sql", friend)
    assert not await may(friend)
    for wrong in ("", "A B", tenant, "**"):
        with pytest.raises(InvalidRequest, match="shared_with"):
            await store.sharing.share(tenant, "sql", wrong)
