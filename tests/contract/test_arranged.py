"""Uploads whose bytes come in canonical form: taken as they are, and trusted for nothing."""

import asyncio
import errno
import json
import resource
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from services.adapter_store.arrival import Arrival
from services.adapter_store.records import Upload
from services.adapter_store.staging import Staging
from services.core.errors import CorruptData, InvalidAdapter, InvalidRequest
from tests.directly import Direct, arrived, direct, put, put_all
from tests.uploading import ACME, DATA, begin, begin_in_parts, header, sha256, write


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Direct]:
    async with direct("folder", tmp_path, monkeypatch) as here:
        yield here


async def send(here: Direct, upload: Upload, data: bytes) -> None:
    pieces, _ = await here.uploads.stage(upload.id, ACME)
    await asyncio.to_thread(put_all, pieces, data)


async def send_some(here: Direct, upload: Upload, data: bytes, start: int, end: int) -> None:
    """Then the line is cut."""
    [piece] = (await here.uploads.stage(upload.id, ACME))[0]
    assert piece.offset == start
    await asyncio.to_thread(put, piece.url, data[start:end], piece.length)
    await arrived(here, upload.id, end)


def blobs(here: Direct) -> list[Path]:
    return [path for path in here.folder.glob("blobs/blobs/**/*") if path.is_file()]


def with_nan(data: bytes, name: str) -> bytes:
    tensors = load(data)
    tensors[name][-1, -1] = torch.nan
    return save(tensors)


V1_B = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"


async def test_what_came_in_parts_is_what_the_store_would_write(here: Direct) -> None:
    whole = await begin(here.uploads)
    await write(here.uploads, whole, DATA)
    version = await here.uploads.finish(whole.id, ACME)
    upload, data = await begin_in_parts(here.uploads, adapter="again")
    assert sha256(data) == version.digest
    await send(here, upload, data)
    again = await here.uploads.finish(upload.id, ACME, sha256(data))
    assert replace(again, adapter=version.adapter, created=version.created) == version
    stored = b"".join([part async for part in here.catalog.download(version.digest, ACME)])
    assert stored == data
    assert len(blobs(here)) == 1
    assert here.staging.held() == []


async def test_it_is_neither_read_nor_written_again(
    here: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, data = await begin_in_parts(here.uploads)
    await send(here, upload, data)
    [staged] = (here.folder / "uploads").iterdir()
    file = staged.stat().st_ino
    looked_at: list[int] = []
    monkeypatch.setattr(Arrival, "take", lambda arrival, data, start: looked_at.append(start))
    await here.uploads.finish(upload.id, ACME, sha256(data))
    assert [path.stat().st_ino for path in blobs(here)] == [file]
    assert looked_at == []


@pytest.mark.parametrize("cuts", [[3], [500, 501, 1234], [4096, 5001], [-1]])
@pytest.mark.parametrize("restarts", [False, True])
async def test_a_cut_upload_goes_on_wherever_it_was(
    here: Direct, cuts: list[int], restarts: bool
) -> None:
    bad = with_nan(DATA, V1_B)
    for content in (bad, DATA):
        upload, data = await begin_in_parts(here.uploads, content)
        start = 0
        for cut in cuts:
            end = cut % len(data)
            await send_some(here, upload, data, start, end)
            if restarts:
                restart(here)
            again, _ = await begin_in_parts(here.uploads, content)
            assert (again.id, again.committed_bytes) == (upload.id, end)
            start = end
        await send(here, upload, data)
        if content is bad:
            with pytest.raises(InvalidAdapter, match=r"v_proj: lora_B has values .* not finite"):
                await here.uploads.finish(upload.id, ACME, sha256(data))
        else:
            version = await here.uploads.finish(upload.id, ACME, sha256(data))
            assert version.digest == sha256(data)
    assert len(blobs(here)) == 1


def restart(here: Direct) -> None:
    """What was only in the store's memory is gone."""
    staging = Staging(here.folder / "uploads")
    here.staging._arrivals, here.staging._writers = staging._arrivals, staging._writers


async def test_it_may_come_by_grpc(here: Direct) -> None:
    upload, data = await begin_in_parts(here.uploads)
    await write(here.uploads, upload, data)
    assert (await here.uploads.finish(upload.id, ACME, sha256(data))).digest == sha256(data)


async def test_bytes_unlike_their_digest_are_refused_and_gone(here: Direct) -> None:
    upload, data = await begin_in_parts(here.uploads)
    await send(here, upload, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptData, match="SHA-256"):
        await here.uploads.finish(upload.id, ACME, sha256(data))
    assert (here.staging.held(), blobs(here)) == ([], [])


async def test_finishing_too_early_loses_nothing(here: Direct) -> None:
    upload, data = await begin_in_parts(here.uploads)
    await send_some(here, upload, data, 0, 700)
    with pytest.raises(InvalidRequest, match=f"700 of {len(data)} bytes"):
        await here.uploads.finish(upload.id, ACME, sha256(data))
    await send(here, upload, data)
    await here.uploads.finish(upload.id, ACME, sha256(data))


def changed(data: bytes, change: Any) -> bytes:
    """With another header of the same length, whatever it says."""
    told = json.loads(header(data)[8:])
    change(told)
    text = json.dumps(told, separators=(",", ":")).encode()
    space = len(header(data)) - 8 - len(text)
    assert space >= 0
    return data[:8] + text + b" " * space + data[len(header(data)) :]


def _rescaled(told: Any) -> None:
    facts = json.loads(told["__metadata__"]["lorikeet"])
    facts["scaling"]["0.q"] = 9.0
    told["__metadata__"]["lorikeet"] = json.dumps(facts, separators=(",", ":"))


def _swapped(told: Any) -> None:
    one, other = told["0.q.A"], told["1.q.A"]
    one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]


def _in_peft_names(told: Any) -> None:
    told["x"] = told.pop("0.q.A")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_rescaled, "not the canonical one"),
        (_swapped, "not the canonical one"),
        (_in_peft_names, "no LoRA tensor"),
    ],
)
async def test_a_header_that_is_not_the_canonical_one_is_refused(
    here: Direct, change: Any, reason: str
) -> None:
    upload, good = await begin_in_parts(here.uploads)
    data = changed(good, change)
    assert data != good
    await send(here, upload, data)
    with pytest.raises(InvalidAdapter, match=reason):
        await here.uploads.finish(upload.id, ACME, sha256(data))
    assert (here.staging.held(), blobs(here)) == ([], [])


async def test_values_are_judged_by_what_came_not_by_what_was_told(here: Direct) -> None:
    """Two float16, of which one is NaN, are a finite float32."""
    halves = {name: tensor.half() for name, tensor in load(with_nan(DATA, V1_B)).items()}
    upload, data = await begin_in_parts(here.uploads, save(halves))
    arrangement = upload.arrangement
    assert arrangement is not None
    lies = (
        replace(part, dtype="F32", shape=(part.shape[0], part.shape[1] // 2))
        for part in arrangement.parts
    )
    another = b"\0" * len(arrangement.head)
    here.staging.expect(upload.id, replace(arrangement, head=another, parts=tuple(lies)))
    await send(here, upload, data)
    with pytest.raises(InvalidAdapter, match="not finite"):
        await here.uploads.finish(upload.id, ACME, sha256(data))


@pytest.mark.parametrize(
    "told",
    [
        b"no header",
        header(DATA)[:-1],
        header(DATA) + b" ",
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{}",
        header(DATA).replace(b'"F32"', b'"F16"', 1),
        header(DATA).replace(b'"data_offsets":[0,', b'"data_offsets":[8,', 1),
        header(DATA).replace(b"[48,4]", b"[48,5]", 1),
    ],
)
async def test_a_header_is_checked_at_once(here: Direct, told: bytes) -> None:
    with pytest.raises(InvalidAdapter):
        await begin_in_parts(here.uploads, header=told)
    assert here.staging.held() == []


async def test_what_a_header_tells_is_refused_at_once(here: Direct) -> None:
    tensors = load(DATA)
    del tensors[V1_B]
    with pytest.raises(InvalidAdapter, match="lora_B is missing"):
        await begin_in_parts(here.uploads, save(tensors))


async def test_who_tells_a_digest_at_the_start_sends_the_file_as_it_is(here: Direct) -> None:
    upload = await begin(here.uploads, header=header(DATA))
    assert upload.arrangement is None
    await send(here, upload, DATA)
    assert (await here.uploads.finish(upload.id, ACME)).number == 1


async def test_the_same_content_in_another_order_is_another_upload(here: Direct) -> None:
    tag = sha256(DATA)
    whole = await begin(here.uploads, sha256="", content_tag=tag)
    upload, data = await begin_in_parts(here.uploads)
    assert whole.id != upload.id
    await send(here, whole, DATA)
    await send(here, upload, data)
    first = await here.uploads.finish(whole.id, ACME, tag)
    assert await here.uploads.finish(upload.id, ACME, sha256(data)) == first


async def test_a_full_disk_is_told_and_keeps_what_came(here: Direct) -> None:
    upload, data = await begin_in_parts(here.uploads)
    [piece] = (await here.uploads.stage(upload.id, ACME))[0]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1200, before[1]))
    try:
        assert await asyncio.to_thread(put, piece.url, data) == 507
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await send(here, upload, data)
    assert (await here.uploads.finish(upload.id, ACME, sha256(data))).digest == sha256(data)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
async def test_it_is_copied_where_a_file_has_one_name(
    here: Direct, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(path: Path, target: Path) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    upload, data = await begin_in_parts(here.uploads)
    await send(here, upload, data)
    await here.uploads.finish(upload.id, ACME, sha256(data))
    assert [path.read_bytes() for path in blobs(here)] == [data]


async def test_what_cannot_be_committed_can_be_finished_again(
    here: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that dies between the two still has what it said it had."""
    upload, data = await begin_in_parts(here.uploads)
    await send(here, upload, data)

    async def dies(*given: Any) -> None:
        raise ConnectionError("the database is gone")

    with monkeypatch.context() as without:
        without.setattr(here.uploads._repository, "commit", dies)
        with pytest.raises(ConnectionError):
            await here.uploads.finish(upload.id, ACME, sha256(data))
    assert here.staging.committed(upload.id) == len(data)
    assert (await here.uploads.finish(upload.id, ACME, sha256(data))).digest == sha256(data)
    assert len(blobs(here)) == 1
