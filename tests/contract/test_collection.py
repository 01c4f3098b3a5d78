"""What is kept, what goes and when: on every database, with blobs in a folder."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import update

from services.adapter_store.blobs import open_blobs
from services.adapter_store.collection import Collected, Collector, Keeping
from services.adapter_store.doors import Door
from services.adapter_store.models import BlobRow
from services.adapter_store.records import AdapterVersion
from services.adapter_store.staging import Staging
from services.adapter_store.weights import Weights
from services.core.errors import ModelNotFound, NotFound, ServingError
from services.core.types import Digest, TenantId
from services.runtime.db import writing
from tests.stores import Store, ask, fresh_tenant, upload, version

AT_ONCE = timedelta(microseconds=-1)  # so that a lease has run out when it is given
NEVER = timedelta(days=365)
PART = 5 * 1024 * 1024  # what is written at once


class Shop:
    """A store with weights: each version's content is bytes of its own."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.blobs = open_blobs(f"file://{folder}")
        self.weights = Weights(store.blob_rows, self.blobs)

    def collector(self, **keeping: timedelta) -> Collector:
        kept = {"undelete": AT_ONCE, "grace": AT_ONCE, "uploads": NEVER} | keeping
        return Collector(
            versions=self.store.versions,
            uploads=self.store.uploads,
            repository=self.store.blob_rows,
            changes=self.store.changes,
            blobs=self.blobs,
            staging=Staging(self.folder / "uploads"),
            door=Door(),
            keeping=Keeping(**kept),
        )

    async def add(self, tenant: TenantId, data: bytes) -> AdapterVersion:
        digest = Digest(hashlib.sha256(data).hexdigest())
        opened = await self.store.uploads.open_upload(upload("sql", tenant), most_uploads=99)
        await self.weights.keep(digest, iter([memoryview(data)]))
        made = version("sql", int(digest, 16), tenant)
        return await self.store.uploads.commit(opened.id, made)

    async def read(self, digest: Digest) -> bytes:
        return b"".join([piece async for piece in self.weights.read(digest)])

    def files(self) -> set[str]:
        """Digests of the blobs that lie in the folder."""
        return {
            path.name.partition("-")[0]
            for path in self.folder.rglob("blobs/sha256/*/*")
            if path.is_file()
        }


@pytest.fixture
def shop(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr("services.adapter_store.weights.LEASE", AT_ONCE)
    return Shop(store, tmp_path)


async def test_the_same_bytes_are_one_blob(shop: Shop) -> None:
    versions = await asyncio.gather(*(shop.add(fresh_tenant(), b"same") for _ in range(4)))
    assert len({version.digest for version in versions}) == 1
    assert len(list(shop.folder.rglob("blobs/sha256/*/*"))) == 1
    assert await shop.read(versions[0].digest) == b"same"


async def test_what_is_in_use_stays_and_what_was_deleted_for_good_goes(shop: Shop) -> None:
    tenant, other = fresh_tenant(), fresh_tenant()
    kept = await shop.add(tenant, b"kept" + tenant.encode())
    shared = await shop.add(tenant, b"shared" + tenant.encode())
    await shop.add(other, b"shared" + tenant.encode())
    gone = await shop.add(tenant, b"gone" + tenant.encode())
    lost = await shop.add(tenant, b"newest" + tenant.encode())
    for number in (2, 3):
        await shop.store.versions.delete_version(tenant, "sql", number)
    assert (await shop.collector(undelete=NEVER).collect()).versions == 0
    before = await shop.collector(grace=NEVER).collect()
    assert (before.versions, before.blobs) == (2, 0)  # gone, and their bytes not yet
    assert await shop.read(gone.digest)
    with pytest.raises(ModelNotFound):
        await shop.store.versions.undelete_version(tenant, "sql", 3, within=NEVER)
    await _expire(shop, gone.digest)
    assert (await shop.collector().collect()).blobs == 1
    assert {kept.digest, shared.digest, lost.digest} <= shop.files()
    assert gone.digest not in shop.files()
    with pytest.raises(NotFound):
        await shop.read(gone.digest)
    assert await shop.collector().collect() == Collected(0, 0, 0)
    again = await shop.add(tenant, b"gone" + tenant.encode())
    assert again.number == 5  # numbers are not given twice
    assert await shop.read(again.digest)


async def test_an_adapter_that_is_gone_frees_its_name(shop: Shop) -> None:
    tenant, friend = fresh_tenant(), fresh_tenant()
    first = await shop.add(tenant, b"first" + tenant.encode())
    await shop.store.lifecycle.promote(tenant, "sql", "1", ask())
    await shop.store.sharing.share(tenant, "sql", friend)
    await shop.store.versions.delete_adapter(tenant, "sql")
    await shop.collector().collect()
    assert first.digest not in shop.files()
    second = await shop.add(tenant, b"second" + tenant.encode())
    assert second.number == 2
    with pytest.raises(ModelNotFound):  # production was deleted with it
        await shop.store.meant(tenant, "sql")
    move = await shop.store.lifecycle.promote(tenant, "sql", "2", ask())
    assert move.generation == 2
    with pytest.raises(ModelNotFound):
        await shop.store.meant(friend, f"{tenant}/sql")


async def test_uploads_that_were_given_up_go(shop: Shop) -> None:
    tenant = fresh_tenant()
    opened = await shop.store.uploads.open_upload(upload("sql", tenant), most_uploads=1)
    part = shop.folder / "uploads" / f"{opened.id}.part"
    collector = shop.collector(uploads=AT_ONCE)
    part.write_bytes(b"some")
    assert (await shop.collector().collect()).uploads == 0
    assert (await collector.collect()).uploads >= 1
    assert not part.exists()
    assert await shop.store.uploads.upload(opened.id) is None


async def test_what_a_crash_left_unreferenced_goes(shop: Shop) -> None:
    """Bytes that were stored for a version that never came; a row whose bytes never came."""
    data = b"orphan" + fresh_tenant().encode()
    digest = Digest(hashlib.sha256(data).hexdigest())
    await shop.weights.keep(digest, iter([memoryview(data)]))
    nothing = Digest(hashlib.sha256(data + b"!").hexdigest())
    await shop.store.blob_rows.lease(nothing, "blobs/sha256/xx/never", AT_ONCE)
    assert digest in shop.files()
    assert (await shop.collector().collect()).blobs == 2
    assert digest not in shop.files()


async def test_what_a_killed_store_had_begun_to_write_goes_when_it_is_old(shop: Shop) -> None:
    """In a file of a name that is the library's."""

    async def never_ending() -> AsyncIterator[memoryview]:
        for _ in range(8):
            yield memoryview(bytes(1_000_000))
        await asyncio.Event().wait()

    def begun() -> list[Path]:
        return [path for path in shop.folder.rglob("*#*") if path.is_file()]

    writing = asyncio.create_task(shop.blobs.put("blobs/half", never_ending()))
    while not begun() or begun()[0].stat().st_size < PART:  # noqa: ASYNC110  # a file
        await asyncio.sleep(0.01)  # until nothing is written to it any more
    await shop.collector().collect()
    assert begun(), "somebody is still writing it"
    os.utime(begun()[0], (0, 0))
    await shop.collector().collect()
    assert not begun()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_commit_and_a_collection_at_once_lose_nothing(shop: Shop) -> None:
    """With leases that protect nobody: the foreign key alone decides."""
    tenant, collector = fresh_tenant(), shop.collector()
    made: list[AdapterVersion] = []

    async def collect() -> None:
        for _ in range(10):
            await collector.collect()
            await asyncio.sleep(0.01)  # so that some commit wins

    async def commit(index: int) -> AdapterVersion | None:
        try:
            return await shop.add(tenant, f"{tenant} {index}".encode())
        except ServingError:
            return None

    collecting = asyncio.create_task(collect())
    for index in count():
        if collecting.done() and index >= 40:
            break
        if (version := await commit(index)) is not None:
            made.append(version)
    await collecting
    assert made
    for version in made:
        assert hashlib.sha256(await shop.read(version.digest)).hexdigest() == version.digest


async def test_rot_is_found_and_mended_by_the_same_bytes(shop: Shop) -> None:
    tenant = fresh_tenant()
    data = b"weights" + tenant.encode()
    found = await shop.add(tenant, data)
    collector = shop.collector()
    assert found.digest not in await collector.scrub(10_000)
    assert await collector.verify(found.digest)
    (path,) = shop.folder.rglob(f"blobs/sha256/*/{found.digest}-*")
    path.write_bytes(data[:-1] + b"?")
    assert found.digest in await collector.scrub(10_000)
    assert not await collector.verify(found.digest)
    path.unlink()
    assert not await collector.verify(found.digest)
    await shop.add(fresh_tenant(), data)
    assert await collector.verify(found.digest)
    assert await shop.read(found.digest) == data
    assert not await collector.verify(Digest("0" * 64))


async def _expire(shop: Shop, digest: Digest) -> None:
    """The end of a lease, without waiting for it."""
    async with writing(shop.store.sessions) as session:
        await session.execute(
            update(BlobRow).where(BlobRow.digest == digest).values(leased_until_us=0)
        )
