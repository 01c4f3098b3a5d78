"""Content-addressed bytes: a local folder or S3, through obstore."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, ObjectStore, from_url

from services.core.errors import InvalidRequest, NotFound
from services.core.types import Digest

CHUNK_BYTES = 1024 * 1024


class Blobs:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def put(self, digest: Digest, data: bytes) -> None:
        """Durable when it returns. Writing what is there already changes nothing."""
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("the data is not the digest's")
        try:
            await obstore.put_async(self._store, _path(digest), data, mode="create")
        except AlreadyExistsError:
            return
        if isinstance(self._store, LocalStore):
            _sync(Path(str(self._store.prefix)) / _path(digest))

    async def read(
        self, digest: Digest, *, start: int = 0, length: int = 0
    ) -> AsyncIterator[bytes]:
        """In pieces of at most 1 MiB, `length` bytes or to the end; the reader verifies.

        Raises NotFound, or InvalidRequest for a start behind the end.
        """
        try:
            size = (await obstore.head_async(self._store, _path(digest)))["size"]
            end = min(size, start + length) if length else size
            if not 0 <= start < end:
                raise InvalidRequest.of("offset", f"there are {size} bytes")
            result = await obstore.get_async(
                self._store, _path(digest), options={"range": (start, end)}
            )
        except FileNotFoundError as error:
            raise NotFound(f"there are no weights {digest[:12]}") from error
        async for piece in result.stream(min_chunk_size=CHUNK_BYTES):
            data = bytes(piece)
            for at in range(0, len(data), CHUNK_BYTES):
                yield data[at : at + CHUNK_BYTES]


def open_blobs(url: str) -> Blobs:
    """file:///folder (made if missing) or s3://bucket/prefix (credentials from AWS_*)."""
    if url.startswith("file://"):
        return Blobs(LocalStore(url.removeprefix("file://"), mkdir=True))
    return Blobs(from_url(url))


def _path(digest: Digest) -> str:
    return f"blobs/sha256/{digest[:2]}/{digest}"


def _sync(path: Path) -> None:
    """To the disk: the file's bytes, and its name in every folder on the way."""
    for entry in (path, *list(path.parents)[:4]):
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
