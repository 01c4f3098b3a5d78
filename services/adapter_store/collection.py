"""What nobody can reach any more goes; what is kept is read again before somebody needs it."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from services.adapter_store.blobs import Blobs
from services.adapter_store.weights import Blob
from services.core.errors import InvalidRequest, NotFound
from services.core.types import Digest

log = structlog.get_logger()

BATCH = 100


@dataclass(frozen=True, slots=True)
class Collected:
    """How many of each went."""

    versions: int
    blobs: int
    uploads: int
    changes: int = 0


class VersionRepository(Protocol):
    async def purge(self, *, deleted_for: timedelta, grace: timedelta, limit: int) -> int:
        """Versions deleted for so long go for good; what they leave is kept for `grace`."""
        ...


class UploadRepository(Protocol):
    async def purge(self, *, older_than: timedelta, limit: int) -> list[str]:
        """Uploads as old as that, finished or given up: the ids of those that went."""
        ...

    async def unknown(self, ids: Sequence[str]) -> list[str]:
        """Those of them that are no upload that still wants its bytes."""
        ...


class BlobRepository(Protocol):
    async def discard_unreachable(self, limit: int) -> int: ...
    async def garbage(self, limit: int) -> list[str]: ...
    async def forget_garbage(self, key: str) -> None: ...
    async def find(self, digest: Digest) -> Blob | None: ...
    async def least_verified(self, limit: int) -> list[Blob]: ...
    async def verified(self, blob: Blob, *, is_good: bool) -> None: ...


class ChangeRepository(Protocol):
    async def purge(self, *, older_than: timedelta, limit: int) -> int: ...


class Staging(Protocol):
    def held(self) -> list[str]: ...
    def discard(self, upload_id: str) -> None: ...


class Door(Protocol):
    async def held(self) -> list[str]: ...
    async def discard(self, upload_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long what was deleted, left unfinished or told of is kept."""

    undelete: timedelta = timedelta(days=7)
    grace: timedelta = timedelta(hours=1)
    uploads: timedelta = timedelta(days=7)
    changes: timedelta = timedelta(days=7)


class Collector:
    """Every step is a transaction of its own that the next run goes on from."""

    def __init__(
        self,
        *,
        versions: VersionRepository,
        uploads: UploadRepository,
        repository: BlobRepository,
        changes: ChangeRepository,
        blobs: Blobs,
        staging: Staging,
        door: Door,
        keeping: Keeping,
    ) -> None:
        self._versions = versions
        self._uploads = uploads
        self._repository = repository
        self._changes = changes
        self._blobs = blobs
        self._staging = staging
        self._door = door
        self._keeping = keeping

    async def collect(self) -> Collected:
        versions = blobs = uploads = changes = 0
        while gone := await self._versions.purge(
            deleted_for=self._keeping.undelete, grace=self._keeping.grace, limit=BATCH
        ):
            versions += gone
        while ended := await self._uploads.purge(older_than=self._keeping.uploads, limit=BATCH):
            uploads += len(ended)
        for upload in await self._uploads.unknown(self._staging.held()):
            self._staging.discard(upload)
        for upload in await self._uploads.unknown(await self._door.held()):
            await self._door.discard(upload)
        while gone := await self._repository.discard_unreachable(BATCH):
            blobs += gone
        while keys := await self._repository.garbage(BATCH):
            for key in keys:
                await self._blobs.delete(key)
                await self._repository.forget_garbage(key)
        await self._blobs.sweep()
        while gone := await self._changes.purge(older_than=self._keeping.changes, limit=BATCH):
            changes += gone
        return Collected(versions, blobs, uploads, changes)

    async def scrub(self, limit: int) -> list[Digest]:
        """Read so many blobs again, those longest unread first: the damaged ones."""
        blobs = await self._repository.least_verified(limit)
        return [blob.digest for blob in blobs if not await self._verify(blob)]

    async def verify(self, digest: Digest) -> bool:
        """Whether what is stored can be read and is what it should be."""
        blob = await self._repository.find(digest)
        return blob is not None and await self._verify(blob)

    async def run(self, every: timedelta) -> None:
        """For good: collect, and read one batch again."""
        while True:
            await asyncio.sleep(every.total_seconds())
            try:
                collected = await self.collect()
                damaged = await self.scrub(BATCH)
            except Exception:  # the next round may find the disk or the database well again
                log.exception("collection_failed")
            else:
                log.info("collected", collected=collected, damaged=len(damaged))

    async def _verify(self, blob: Blob) -> bool:
        good = await self._is_good(blob)
        await self._repository.verified(blob, is_good=good)
        if not good:
            log.error("blob_damaged", digest=blob.digest, key=blob.key)
        return good

    async def _is_good(self, blob: Blob) -> bool:
        digest = hashlib.sha256()
        try:
            async for data in self._blobs.read(blob.key):
                await asyncio.to_thread(digest.update, data)
        except (NotFound, InvalidRequest):
            return False
        return digest.hexdigest() == blob.digest
