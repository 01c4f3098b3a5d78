"""Uploads: resumed, refused, raced, and on a disk that is full."""

import asyncio
import hashlib
import json
import resource
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save

from services.adapter_store.blobs import open_blobs
from services.adapter_store.catalog import Catalog, StoreLimits
from services.adapter_store.records import Chunk, Upload
from services.adapter_store.repository import SqlAdapterRepository
from services.core.errors import (
    CorruptData,
    FailedPrecondition,
    InvalidAdapter,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    OffsetMismatch,
    ResourceExhausted,
)
from services.core.types import TenantId
from services.runtime.db import close_sessions, open_sessions
from tests.databases import migrated
from tests.peft_folders import peft_config, peft_tensors
from tests.unit.adapter_store.test_validation import BASE, SHAPES

ACME = TenantId("acme")
DATA = save(peft_tensors(SHAPES, names=["q_proj", "v_proj"], rank=4, seed=1))


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with migrated("sqlite", tmp_path) as url:
        yield url


@pytest.fixture
async def catalog(url: str, tmp_path: Path) -> AsyncIterator[Catalog]:
    sessions = open_sessions(url)
    catalog = Catalog(
        SqlAdapterRepository(sessions),
        open_blobs(f"file://{tmp_path / 'blobs'}"),
        tmp_path / "uploads",
        StoreLimits(max_adapter_bytes=1 << 20, max_uploads=3, max_adapters=3),
    )
    await catalog.register_base_model(BASE)
    yield catalog
    await close_sessions(sessions)


async def begin(catalog: Catalog, data: bytes = DATA, **changes: Any) -> Upload:
    arguments: dict[str, Any] = {
        "tenant": ACME,
        "adapter": "sql",
        "config_json": json.dumps(peft_config(base_model_name_or_path="tiny")),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "base_model": "",
    }
    return await catalog.start_upload(**(arguments | changes))


async def chunks(upload: Upload, data: bytes, size: int = 500) -> AsyncIterator[Chunk]:
    for start in range(upload.committed_bytes, len(data), size):
        part = data[start : start + size]
        yield Chunk(upload.id, start, part, zlib.crc32(part))


async def write(catalog: Catalog, upload: Upload, data: bytes) -> Upload:
    return await catalog.write_chunks(chunks(upload, data), ACME)


async def test_an_upload_becomes_a_version_that_downloads_as_its_digest(catalog: Catalog) -> None:
    upload = await begin(catalog)
    assert (await write(catalog, upload, DATA)).committed_bytes == len(DATA)
    version = await catalog.finish_upload(upload.id, ACME)
    assert await catalog.finish_upload(upload.id, ACME) == version
    data = b"".join([part async for part in catalog.download(version.digest)])
    assert hashlib.sha256(data).hexdigest() == version.digest
    assert await catalog.resolve(ACME, "sql") == version
    assert await catalog.resolve(ACME, "sql@1") == version
    assert await catalog.resolve(ACME, f"sql@{version.digest[:12]}") == version
    for wrong in ("sql@2", "sql@", "sql@x", "sq", "", "sql@0", "sql@1@1", f"sql@{'0' * 12}"):
        with pytest.raises(ModelNotFound):
            await catalog.resolve(ACME, wrong)
    with pytest.raises(ModelNotFound):
        await catalog.resolve(TenantId("other"), "sql")


async def test_a_broken_off_upload_goes_on_where_it_was(catalog: Catalog) -> None:
    upload = await begin(catalog)
    half = len(DATA) // 2

    async def broken() -> AsyncIterator[Chunk]:
        async for chunk in chunks(upload, DATA[:half]):
            yield chunk
        raise ConnectionError("the line went dead")

    with pytest.raises(ConnectionError):
        await catalog.write_chunks(broken(), ACME)
    again = await begin(catalog)
    assert (again.id, again.committed_bytes) == (upload.id, half)
    assert (await catalog.get_upload(upload.id, ACME)).committed_bytes == half
    await write(catalog, again, DATA)
    assert (await catalog.finish_upload(upload.id, ACME)).number == 1


async def test_a_chunk_that_does_not_follow_or_was_damaged_changes_nothing(
    catalog: Catalog,
) -> None:
    upload = await begin(catalog)

    async def one(offset: int, data: bytes, crc: int | None = None) -> AsyncIterator[Chunk]:
        yield Chunk(upload.id, offset, data, zlib.crc32(data) if crc is None else crc)

    with pytest.raises(OffsetMismatch) as caught:
        await catalog.write_chunks(one(7, b"x"), ACME)
    assert caught.value.committed_bytes == 0
    with pytest.raises(CorruptData, match="damaged on its way"):
        await catalog.write_chunks(one(0, b"x", crc=1), ACME)
    with pytest.raises(InvalidRequest, match="more than the declared"):
        await catalog.write_chunks(one(0, DATA + b"x"), ACME)
    assert (await catalog.get_upload(upload.id, ACME)).committed_bytes == 0


async def test_an_upload_is_its_tenants_alone(catalog: Catalog) -> None:
    upload = await begin(catalog)
    stranger = TenantId("stranger")
    for call in (
        catalog.get_upload(upload.id, stranger),
        catalog.finish_upload(upload.id, stranger),
        catalog.write_chunks(chunks(upload, DATA), stranger),
        catalog.get_upload("../../etc/passwd", ACME),
    ):
        with pytest.raises(NotFound):
            await call


async def test_two_writers_do_not_mix(catalog: Catalog) -> None:
    upload = await begin(catalog)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[Chunk]:
        async for chunk in chunks(upload, DATA):
            yield chunk
            started.set()
            await go_on.wait()

    first = asyncio.create_task(catalog.write_chunks(slow(), ACME))
    await started.wait()
    with pytest.raises(FailedPrecondition, match="another call"):
        await write(catalog, upload, DATA)
    go_on.set()
    await first
    assert (await catalog.finish_upload(upload.id, ACME)).number == 1


async def test_finishing_too_early_loses_nothing(catalog: Catalog) -> None:
    upload = await begin(catalog)
    await catalog.write_chunks(chunks(upload, DATA[:900]), ACME)
    with pytest.raises(InvalidRequest, match=f"900 of {len(DATA)} bytes"):
        await catalog.finish_upload(upload.id, ACME)
    await write(catalog, await begin(catalog), DATA)
    await catalog.finish_upload(upload.id, ACME)


async def test_bytes_that_are_not_the_declared_ones_are_refused_and_gone(
    catalog: Catalog, tmp_path: Path
) -> None:
    upload = await begin(catalog, sha256="0" * 64)
    await write(catalog, upload, DATA)
    with pytest.raises(CorruptData, match="SHA-256"):
        await catalog.finish_upload(upload.id, ACME)
    assert list((tmp_path / "uploads").iterdir()) == []
    with pytest.raises(ModelNotFound):
        await catalog.resolve(ACME, "sql")
    upload = await begin(catalog)
    await write(catalog, upload, DATA)
    await catalog.finish_upload(upload.id, ACME)


async def test_an_adapter_that_is_refused_leaves_nothing(catalog: Catalog, tmp_path: Path) -> None:
    bad = DATA[:-8] + b"\xff" * 8
    upload = await begin(catalog, bad)
    await write(catalog, upload, bad)
    with pytest.raises(InvalidAdapter, match="not finite"):
        await catalog.finish_upload(upload.id, ACME)
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


async def test_a_full_disk_keeps_what_was_acknowledged(catalog: Catalog) -> None:
    upload = await begin(catalog)
    with full_disk(1200), pytest.raises(ResourceExhausted, match="can be resumed"):
        await write(catalog, upload, DATA)
    again = await begin(catalog)
    assert (again.id, again.committed_bytes) == (upload.id, 1000)
    await write(catalog, again, DATA)
    assert (await catalog.finish_upload(upload.id, ACME)).number == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"adapter": "../evil"}, "adapter"),
        ({"adapter": ""}, "adapter"),
        ({"adapter": "a/b"}, "adapter"),
        ({"adapter": "sql@2"}, "adapter"),
        ({"adapter": "A"}, "adapter"),
        ({"adapter": "a" * 64}, "adapter"),
        ({"adapter": "a\n"}, "adapter"),
        ({"adapter": ".."}, "adapter"),
        ({"tenant": TenantId("../x")}, "tenant"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"size_bytes": 1 << 21}, "size_bytes"),
        ({"sha256": "zz"}, "sha256"),
        ({"base_model": "large"}, "base_model"),
        ({"config_json": json.dumps(peft_config())}, "base_model_name_or_path"),
    ],
)
async def test_a_declaration_that_is_wrong_is_refused(
    catalog: Catalog, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await begin(catalog, **changes)
    assert [violation.field for violation in caught.value.violations] == [says]


async def test_a_tenant_has_limits(catalog: Catalog) -> None:
    for number in range(3):
        await begin(catalog, DATA + bytes(number))
    with pytest.raises(ResourceExhausted, match="3 unfinished"):
        await begin(catalog, DATA + bytes(9))
    await begin(catalog, tenant=TenantId("other"))


async def test_a_tenant_has_so_many_adapters(catalog: Catalog) -> None:
    for name in ("a", "b", "c"):
        upload = await begin(catalog, adapter=name)
        await write(catalog, upload, DATA)
        await catalog.finish_upload(upload.id, ACME)
    with pytest.raises(ResourceExhausted, match="3 adapters"):
        await begin(catalog, adapter="d")
    await begin(catalog, adapter="a", size_bytes=5)  # a new version is no new adapter
