"""Blobs in memory, in a folder and in a real S3 endpoint."""

from collections.abc import AsyncIterator

import pytest

from services.adapter_store.blobs import Blobs
from services.core.errors import CorruptData, InvalidRequest, NotFound

DATA = bytes(range(256)) * 60_000  # more than one part


async def pieces_of(data: bytes, *, fails: bool = False) -> AsyncIterator[memoryview]:
    for at in range(0, len(data), 1_000_000):
        yield memoryview(data)[at : at + 1_000_000]
    if fails:
        raise CorruptData("it was not what it should be")


async def read(blobs: Blobs, key: str, **part: int) -> list[bytes]:
    return [piece async for piece in blobs.read(key, **part)]


async def test_what_was_put_is_read_in_pieces(blobs: Blobs) -> None:
    await blobs.put("blobs/a/b", pieces_of(DATA))
    await blobs.put("blobs/a/b", pieces_of(DATA))
    pieces = await read(blobs, "blobs/a/b")
    assert b"".join(pieces) == DATA
    assert max(map(len, pieces)) <= 1024 * 1024


async def test_a_part_is_read(blobs: Blobs) -> None:
    await blobs.put("part", pieces_of(DATA))
    for start, length in ((0, 1), (5, 90), (len(DATA) - 1, 0), (100, 1 << 40)):
        expected = DATA[start : start + length] if length else DATA[start:]
        assert b"".join(await read(blobs, "part", start=start, length=length)) == expected
    with pytest.raises(InvalidRequest, match="offset"):
        await read(blobs, "part", start=len(DATA))


async def test_what_was_put_again_replaces_what_was_there(blobs: Blobs) -> None:
    await blobs.put("again", pieces_of(b"damaged"))
    await blobs.put("again", pieces_of(b"mended"))
    assert await read(blobs, "again") == [b"mended"]


async def test_what_is_gone_is_not_found(blobs: Blobs) -> None:
    await blobs.put("gone", pieces_of(DATA))
    for _ in range(2):
        await blobs.delete("gone")
    with pytest.raises(NotFound):
        await read(blobs, "gone")


async def test_what_cannot_be_read_to_its_end_is_not_stored(blobs: Blobs) -> None:
    with pytest.raises(CorruptData):
        await blobs.put("half", pieces_of(DATA, fails=True))
    with pytest.raises(NotFound):
        await read(blobs, "half")
