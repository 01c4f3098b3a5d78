"""Weights by digest: where they lie is in SQL, so that nothing that is stored is ever unknown."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from services.adapter_store.blobs import Blobs
from services.adapter_store.incoming import Incoming, Linked
from services.core.errors import CorruptData, NotFound
from services.core.types import Digest

LEASE = timedelta(minutes=15)  # how long what nothing refers to yet is safe from collection


@dataclass(frozen=True, slots=True)
class Blob:
    digest: Digest
    key: str
    is_stored: bool  # whole, as far as is known


class BlobRepository(Protocol):
    async def lease(self, digest: Digest, new_key: str, lease: timedelta) -> Blob:
        """The blob of this digest, under `new_key` if there is none; not collected meanwhile."""
        ...

    async def stored(self, blob: Blob) -> None: ...
    async def find(self, digest: Digest) -> Blob | None: ...


class Weights:
    def __init__(self, repository: BlobRepository, blobs: Blobs) -> None:
        self._repository = repository
        self._blobs = blobs

    def incoming(self) -> Incoming | None:
        """See Blobs.incoming."""
        return self._blobs.incoming()

    def linked(self, file: Path) -> Linked | None:
        """See Blobs.linked."""
        return self._blobs.linked(file)

    async def keep(
        self,
        digest: Digest,
        pieces: Iterator[memoryview],
        incoming: Incoming | Linked | None = None,
    ) -> None:
        """Durable when it returns, once for all who have them, and safe for LEASE.

        What is `incoming` has the digest's very bytes. Else `pieces` are made in threads; raises
        CorruptData if they are not the digest's.
        """
        blob = await self._repository.lease(digest, _new_key(digest), LEASE)
        if not blob.is_stored:
            if incoming is None:
                await self._blobs.put(blob.key, _verified(digest, pieces))
            else:
                await self._blobs.promote(incoming, blob.key)
            await self._repository.stored(blob)

    async def read(
        self, digest: Digest, *, start: int = 0, length: int = 0
    ) -> AsyncIterator[bytes]:
        """See Blobs.read; the reader verifies."""
        blob = await self._repository.find(digest)
        if blob is None:
            raise NotFound(f"there are no weights {digest[:12]}")
        async for data in self._blobs.read(blob.key, start=start, length=length):
            yield data


async def _verified(digest: Digest, pieces: Iterator[memoryview]) -> AsyncIterator[memoryview]:
    """Raises CorruptData in the place of the end, so that nothing is stored."""
    found = hashlib.sha256()

    def following() -> memoryview | None:
        piece = next(pieces, None)
        if piece is not None:
            found.update(piece)
        return piece

    while (piece := await asyncio.to_thread(following)) is not None:
        yield piece
    if found.hexdigest() != digest:
        raise CorruptData("the upload changed while it was stored; start it again")


def _new_key(digest: Digest) -> str:
    return f"blobs/sha256/{digest[:2]}/{digest}-{secrets.token_hex(4)}"
