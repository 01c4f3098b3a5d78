"""Uploads: resumed, refused, raced, and on a disk that is full."""

import asyncio
import hashlib
import resource
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.adapter_store.catalog import Catalog
from services.adapter_store.records import Chunk, Provenance, Upload, VersionFilter
from services.adapter_store.repositories.base_models import SqlBaseModelRepository
from services.adapter_store.repositories.versions import SqlVersionRepository
from services.adapter_store.staging import Staging
from services.adapter_store.uploads import Uploads
from services.adapter_store.weights import Weights
from services.core.errors import (
    CorruptData,
    FailedPrecondition,
    InvalidAdapter,
    InvalidRequest,
    NotFound,
    OffsetMismatch,
    ResourceExhausted,
)
from services.core.types import Digest, TenantId
from tests.uploading import ACME, DATA, begin, chunks, write


@pytest.fixture
def catalog(sessions: async_sessionmaker[AsyncSession], weights: Weights) -> Catalog:
    return Catalog(
        SqlVersionRepository(sessions),
        base_models=SqlBaseModelRepository(sessions),
        weights=weights,
        undelete_within=timedelta(days=1),
    )


async def test_an_upload_becomes_a_version_that_downloads_as_its_digest(
    uploads: Uploads, catalog: Catalog
) -> None:
    upload = await begin(uploads)
    assert (await write(uploads, upload, DATA)).committed_bytes == len(DATA)
    version = await uploads.finish(upload.id, ACME)
    assert await uploads.finish(upload.id, ACME) == version
    data = b"".join([part async for part in catalog.download(version.digest, ACME)])
    assert hashlib.sha256(data).hexdigest() == version.digest
    assert (await catalog.list_versions(ACME, "sql", VersionFilter(), 0, ""))[0] == [version]
    details = await catalog.details(version)
    assert (details.config_json, details.ranks["0.q"]) == (upload.config_json, 4)
    some = catalog.download(version.digest, ACME, start=5, length=90)
    assert b"".join([part async for part in some]) == data[5:95]
    for caller, digest in ((TenantId("other"), version.digest), (ACME, Digest("0" * 64))):
        with pytest.raises(NotFound):
            await anext(catalog.download(digest, caller))
    with pytest.raises(InvalidRequest, match="offset"):
        await anext(catalog.download(version.digest, None, start=len(data)))


async def test_a_broken_off_upload_goes_on_where_it_was(uploads: Uploads) -> None:
    upload = await begin(uploads)
    half = len(DATA) // 2

    async def broken() -> AsyncIterator[Chunk]:
        async for chunk in chunks(upload, DATA[:half]):
            yield chunk
        raise ConnectionError("the line went dead")

    with pytest.raises(ConnectionError):
        await uploads.write(broken(), ACME)
    again = await begin(uploads, provenance=Provenance(created_by="acme/another-key"))
    assert (again.id, again.committed_bytes) == (upload.id, half)
    assert (await uploads.get(upload.id, ACME)).committed_bytes == half
    await write(uploads, again, DATA)
    assert (await uploads.finish(upload.id, ACME)).number == 1


async def test_a_chunk_that_does_not_follow_or_was_damaged_changes_nothing(
    uploads: Uploads,
) -> None:
    upload = await begin(uploads)

    async def one(offset: int, data: bytes, crc: int | None = None) -> AsyncIterator[Chunk]:
        yield Chunk(upload.id, offset, data, zlib.crc32(data) if crc is None else crc)

    with pytest.raises(OffsetMismatch) as caught:
        await uploads.write(one(7, b"x"), ACME)
    assert caught.value.committed_bytes == 0
    with pytest.raises(CorruptData, match="damaged on its way"):
        await uploads.write(one(0, b"x", crc=1), ACME)
    with pytest.raises(InvalidRequest, match="more than the declared"):
        await uploads.write(one(0, DATA + b"x"), ACME)
    assert (await uploads.get(upload.id, ACME)).committed_bytes == 0


async def test_an_upload_is_its_tenants_alone(uploads: Uploads) -> None:
    upload = await begin(uploads)
    stranger = TenantId("stranger")
    for call in (
        uploads.get(upload.id, stranger),
        uploads.finish(upload.id, stranger),
        uploads.write(chunks(upload, DATA), stranger),
        uploads.get("../../etc/passwd", ACME),
    ):
        with pytest.raises(NotFound):
            await call


async def test_two_writers_do_not_mix(uploads: Uploads) -> None:
    upload = await begin(uploads)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[Chunk]:
        async for chunk in chunks(upload, DATA):
            yield chunk
            started.set()
            await go_on.wait()

    first = asyncio.create_task(uploads.write(slow(), ACME))
    await started.wait()
    with pytest.raises(FailedPrecondition, match="another call"):
        await write(uploads, upload, DATA)
    go_on.set()
    await first
    assert (await uploads.finish(upload.id, ACME)).number == 1


async def test_a_call_that_ends_while_a_chunk_is_written_leaves_it_whole(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, append = await begin(uploads), Staging.append
    writing, may_write = threading.Event(), threading.Event()

    def slow(staging: Staging, upload: Upload, chunk: Chunk) -> int:
        writing.set()
        assert may_write.wait(60)
        return append(staging, upload, chunk)

    monkeypatch.setattr(Staging, "append", slow)
    call = asyncio.create_task(uploads.write(chunks(upload, DATA), ACME))
    await asyncio.to_thread(writing.wait)
    call.cancel()
    for _ in range(50):  # as many turns as it would need to end
        await asyncio.sleep(0)
    has_left = call.done()
    may_write.set()
    await asyncio.wait([call])
    assert not has_left, "the call ended before its thread"
    again = await begin(uploads)
    await write(uploads, again, DATA)
    assert (await uploads.finish(upload.id, ACME)).number == 1


async def test_finishing_too_early_loses_nothing(uploads: Uploads) -> None:
    upload = await begin(uploads)
    await uploads.write(chunks(upload, DATA[:900]), ACME)
    with pytest.raises(InvalidRequest, match=f"900 of {len(DATA)} bytes"):
        await uploads.finish(upload.id, ACME)
    await write(uploads, await begin(uploads), DATA)
    await uploads.finish(upload.id, ACME)


async def test_bytes_that_are_not_the_declared_ones_are_refused_and_gone(
    uploads: Uploads, tmp_path: Path
) -> None:
    upload = await begin(uploads, sha256="0" * 64)
    await write(uploads, upload, DATA)
    with pytest.raises(CorruptData, match="SHA-256"):
        await uploads.finish(upload.id, ACME)
    assert list((tmp_path / "uploads").iterdir()) == []
    assert await uploads._adapters.newest(ACME, "sql") is None
    upload = await begin(uploads)
    await write(uploads, upload, DATA)
    await uploads.finish(upload.id, ACME)


async def test_an_adapter_that_is_refused_leaves_nothing(uploads: Uploads, tmp_path: Path) -> None:
    bad = DATA[:-8] + b"\xff" * 8
    upload = await begin(uploads, bad)
    await write(uploads, upload, bad)
    with pytest.raises(InvalidAdapter, match="not finite"):
        await uploads.finish(upload.id, ACME)
    assert list((tmp_path / "uploads").iterdir()) == []
    assert not list((tmp_path / "blobs").rglob("*.*"))


@contextmanager
def full_disk(after: int) -> Iterator[None]:
    """No file may grow beyond `after` bytes; the kernel says so as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_keeps_what_was_acknowledged(uploads: Uploads) -> None:
    upload = await begin(uploads)
    with full_disk(1200), pytest.raises(ResourceExhausted, match="can be resumed"):
        await write(uploads, upload, DATA)
    again = await begin(uploads)
    assert (again.id, again.committed_bytes) == (upload.id, 1000)
    await write(uploads, again, DATA)
    assert (await uploads.finish(upload.id, ACME)).number == 1


async def test_a_store_that_restarted_hashes_what_it_had(uploads: Uploads, tmp_path: Path) -> None:
    upload = await begin(uploads)
    await uploads.write(chunks(upload, DATA[:1500]), ACME)
    uploads._staging = Staging(tmp_path / "uploads")
    await write(uploads, await begin(uploads), DATA)
    assert (await uploads.finish(upload.id, ACME)).number == 1
