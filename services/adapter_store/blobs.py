"""Bytes by key: a local folder, S3 or memory, through obstore."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import obstore
from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store, from_url

from services.adapter_store.incoming import Incoming, Linked, sync_folders
from services.core.errors import InvalidRequest, NotFound, Unavailable

CHUNK_BYTES = 1024 * 1024
PARTS_AT_ONCE = 2  # of 5 MiB each
ABANDONED_SECONDS = 3600.0


class Blobs:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._folder = Path(str(store.prefix)) if isinstance(store, LocalStore) else None

    async def put(self, key: str, pieces: AsyncIterator[memoryview]) -> None:
        """Whole and durable when it returns, or not there at all if `pieces` raises.

        What was there before is replaced. What is large goes in parts, few of them in memory.
        Raises Unavailable if somebody deleted it meanwhile.
        """
        await obstore.put_async(self._store, key, pieces, max_concurrency=PARTS_AT_ONCE)
        if self._folder is not None:
            try:
                await asyncio.to_thread(_sync, self._folder / key)
            except FileNotFoundError as error:
                raise Unavailable("its weights were collected meanwhile; try again") from error

    def incoming(self) -> Incoming | None:
        """A blob that can be written before its key is known; only a folder takes one."""
        return None if self._folder is None else Incoming(self._folder)

    def linked(self, file: Path) -> Linked | None:
        """A blob that such a file holds already; only a folder takes one."""
        return None if self._folder is None else Linked(self._folder, file)

    async def promote(self, incoming: Incoming | Linked, key: str) -> None:
        """As `put`, from what was written there."""
        assert self._folder is not None
        await asyncio.to_thread(incoming.promote, self._folder / key)

    async def read(self, key: str, *, start: int = 0, length: int = 0) -> AsyncIterator[bytes]:
        """In pieces of at most 1 MiB, `length` bytes or to the end.

        Raises NotFound, or InvalidRequest for a start behind the end.
        """
        try:
            size = (await obstore.head_async(self._store, key))["size"]
            end = min(size, start + length) if length else size
            if not 0 <= start < end:
                raise InvalidRequest.of("offset", f"there are {size} bytes")
            result = await obstore.get_async(self._store, key, options={"range": (start, end)})
        except FileNotFoundError as error:
            raise NotFound("there are no such weights") from error
        async for piece in result.stream(min_chunk_size=CHUNK_BYTES):
            data = bytes(piece)
            for at in range(0, len(data), CHUNK_BYTES):
                yield data[at : at + CHUNK_BYTES]

    async def delete(self, key: str) -> None:
        """What is not there needs no deletion."""
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return

    async def sweep(self) -> None:
        """What killed stores had begun to write goes. In a bucket a rule for incomplete uploads
        must do it."""
        if self._folder is not None:
            await asyncio.to_thread(_sweep, self._folder)

    async def sizes(self, folder: str) -> dict[str, int]:
        """Bytes by key of everything below."""
        return {
            entry["path"]: entry["size"]
            async for entries in obstore.list(self._store, prefix=folder)
            for entry in entries
        }

    async def put_urls(self, keys: Sequence[str], expires: datetime) -> list[str]:
        """Where whoever has them can PUT these keys, past us; only a bucket has any."""
        if not isinstance(self._store, S3Store) or not keys:
            return []
        live = expires - datetime.now(UTC)
        return list(await obstore.sign_async(self._store, "PUT", list(keys), live))


def open_blobs(url: str) -> Blobs:
    """file:///folder (made if missing), s3://bucket/prefix (credentials from AWS_*) or memory://."""
    if url.startswith("file://"):
        return Blobs(LocalStore(url.removeprefix("file://"), mkdir=True))
    if url == "memory://":
        return Blobs(MemoryStore())
    return Blobs(from_url(url))


def _sweep(folder: Path) -> None:
    """LocalStore writes to "KEY#NUMBER" until a file is whole."""
    for path in folder.glob("**/*#*"):
        with suppress(FileNotFoundError):  # it was finished just now
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()


def _sync(path: Path) -> None:
    """To the disk: the file's bytes, and its name in every folder on the way."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    sync_folders(path)
