"""Blobs in memory, in a folder and in a real S3 endpoint."""

import pytest

from services.adapter_store.blobs import Blobs
from services.core.errors import InvalidRequest, NotFound

DATA = bytes(range(256)) * 12_000


async def read(blobs: Blobs, key: str, **part: int) -> list[bytes]:
    return [piece async for piece in blobs.read(key, **part)]


async def test_what_was_put_is_read_in_pieces(blobs: Blobs) -> None:
    await blobs.put("blobs/a/b", DATA)
    await blobs.put("blobs/a/b", DATA)
    pieces = await read(blobs, "blobs/a/b")
    assert b"".join(pieces) == DATA
    assert max(map(len, pieces)) <= 1024 * 1024


async def test_a_part_is_read(blobs: Blobs) -> None:
    await blobs.put("part", DATA)
    for start, length in ((0, 1), (5, 90), (len(DATA) - 1, 0), (100, 1 << 40)):
        expected = DATA[start : start + length] if length else DATA[start:]
        assert b"".join(await read(blobs, "part", start=start, length=length)) == expected
    with pytest.raises(InvalidRequest, match="offset"):
        await read(blobs, "part", start=len(DATA))


async def test_what_was_put_again_replaces_what_was_there(blobs: Blobs) -> None:
    await blobs.put("again", b"damaged")
    await blobs.put("again", b"mended")
    assert await read(blobs, "again") == [b"mended"]


async def test_what_is_gone_is_not_found(blobs: Blobs) -> None:
    await blobs.put("gone", DATA)
    for _ in range(2):
        await blobs.delete("gone")
    with pytest.raises(NotFound):
        await read(blobs, "gone")
