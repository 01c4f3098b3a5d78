"""Uploads past gRPC: through the store's own door, and through a real S3 endpoint's."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.adapter_store.doors import Piece
from services.adapter_store.records import Upload
from services.core.errors import CorruptData, FailedPrecondition, InvalidRequest, NotFound
from services.core.types import TenantId
from tests.directly import KINDS, Direct, arrived, direct, put, put_all
from tests.uploading import ACME, DATA, begin, chunks, write

TAG = "a" * 64
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=KINDS)
async def here(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Direct]:
    async with direct(request.param, tmp_path, monkeypatch) as here:
        yield here


async def pieces_of(here: Direct, upload: Upload) -> list[Piece]:
    return (await here.uploads.stage(upload.id, ACME))[0]


async def send(here: Direct, upload: Upload, data: bytes = DATA) -> None:
    await asyncio.to_thread(put_all, await pieces_of(here, upload), data)


async def test_what_is_put_becomes_a_version(here: Direct) -> None:
    upload = await begin(here.uploads, sha256="", content_tag=TAG)
    await send(here, upload)
    version = await here.uploads.finish(upload.id, ACME, SHA256)
    assert await here.uploads.finish(upload.id, ACME) == version
    data = b"".join([part async for part in here.catalog.download(version.digest, ACME)])
    assert hashlib.sha256(data).hexdigest() == version.digest
    assert (here.staging.held(), await here.door.held()) == ([], [])
    assert not list(here.folder.glob("blobs/blobs/incoming/*"))
    with pytest.raises(FailedPrecondition, match="finished"):
        await pieces_of(here, upload)


async def test_pieces_are_what_lacks(here: Direct) -> None:
    upload = await begin(here.uploads)
    await here.uploads.write(chunks(upload, DATA[:1500]), ACME)
    pieces = await pieces_of(here, upload)
    assert pieces[0].offset <= 1500
    for before, after in zip(pieces, [*pieces[1:], None], strict=True):
        assert before.offset + before.length == (after.offset if after else len(DATA))
    await send(here, upload)
    assert await pieces_of(here, upload) == []
    assert (await here.uploads.finish(upload.id, ACME)).number == 1


async def test_a_cut_off_put_goes_on_where_it_was(here: Direct) -> None:
    upload = await begin(here.uploads, sha256="", content_tag=TAG)
    [first, *others] = await pieces_of(here, upload)
    if others:  # a bucket keeps whole pieces
        await asyncio.to_thread(put_all, [first], DATA)
        assert await asyncio.to_thread(put, others[0].url, DATA[:10], others[0].length) == 0
        lacks = len(DATA) - first.length
    else:
        assert await asyncio.to_thread(put, first.url, DATA[:1234], first.length) == 0
        await arrived(here, upload.id, 1234)
        lacks = len(DATA) - 1234
    again = await begin(here.uploads, sha256="", content_tag=TAG)
    assert again.id == upload.id
    assert sum(piece.length for piece in await pieces_of(here, again)) == lacks
    await send(here, again)
    assert (await here.uploads.finish(upload.id, ACME, SHA256)).number == 1


async def test_finishing_too_early_loses_nothing(here: Direct) -> None:
    upload = await begin(here.uploads)
    with pytest.raises(InvalidRequest, match="bytes have arrived"):
        await here.uploads.finish(upload.id, ACME)
    await send(here, upload)
    await here.uploads.finish(upload.id, ACME)


@pytest.mark.parametrize("told", ["at the start", "at the end"])
async def test_bytes_unlike_their_digest_are_refused_and_gone(here: Direct, told: str) -> None:
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    begun = SHA256 if told == "at the start" else ""
    upload = await begin(here.uploads, content_tag=TAG, sha256=begun)
    await send(here, upload, wrong)
    with pytest.raises(CorruptData, match="SHA-256"):
        await here.uploads.finish(upload.id, ACME, SHA256)
    assert (here.staging.held(), await here.door.held()) == ([], [])
    assert not list(here.folder.glob("blobs/**/*#*"))
    assert await here.uploads._adapters.newest(ACME, "sql") is None


async def test_a_digest_is_told_once_and_is_one(here: Direct) -> None:
    for tag in ("", "short"):
        with pytest.raises(InvalidRequest, match="64 hexadecimal digits"):
            await begin(here.uploads, sha256="", content_tag=tag)
    upload = await begin(here.uploads, sha256="", content_tag=TAG)
    await send(here, upload)
    for sha256 in ("", "0" * 63):
        with pytest.raises(InvalidRequest, match="sha256"):
            await here.uploads.finish(upload.id, ACME, sha256)
    known = await begin(here.uploads)
    assert known.id != upload.id
    with pytest.raises(InvalidRequest, match="began with"):
        await here.uploads.finish(known.id, ACME, "0" * 64)
    assert (await here.uploads.finish(upload.id, ACME, SHA256)).number == 1


async def test_another_tag_is_another_upload(here: Direct) -> None:
    upload = await begin(here.uploads, sha256="", content_tag=TAG)
    await send(here, upload)
    other = await begin(here.uploads, sha256="", content_tag="b" * 64)
    assert (other.id != upload.id, other.committed_bytes) == (True, 0)


async def test_a_stranger_gets_no_urls(here: Direct) -> None:
    upload = await begin(here.uploads)
    with pytest.raises(NotFound):
        await here.uploads.stage(upload.id, TenantId("stranger"))


async def test_grpc_takes_up_what_was_put_and_the_other_way_round(here: Direct) -> None:
    upload = await begin(here.uploads)
    [first, *others] = await pieces_of(here, upload)
    if others:
        await asyncio.to_thread(put_all, [first], DATA)
    else:
        await asyncio.to_thread(put, first.url, DATA[:700], first.length)
        await arrived(here, upload.id, 700)
    await write(here.uploads, await begin(here.uploads), DATA)
    assert (await here.uploads.finish(upload.id, ACME)).number == 1


async def test_what_nobody_finishes_is_collected(here: Direct) -> None:
    upload = await begin(here.uploads)
    pieces = await pieces_of(here, upload)
    await asyncio.to_thread(put_all, pieces[:1], DATA)
    await here.collector.collect()
    assert [*here.staging.held(), *await here.door.held()] == [upload.id]
    await here.uploads._repository.drop_upload(upload.id)
    if len(pieces) > 1:  # a bucket asks nobody: what comes late goes with the rest
        await asyncio.to_thread(put_all, pieces[1:2], DATA)
    await here.collector.collect()
    assert [*here.staging.held(), *await here.door.held()] == []
