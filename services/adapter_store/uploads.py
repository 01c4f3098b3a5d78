"""Uploads: bytes that arrive in pieces, are checked, and become a version."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from services.adapter_store.arrangement import Arrangement, arrange
from services.adapter_store.committing import Committing, OneBaseModel, VersionRepository
from services.adapter_store.declaration import (
    HEX64,
    check_declaration,
    check_provenance,
    choose_base,
)
from services.adapter_store.doors import URLS_LIVE, Door, Piece
from services.adapter_store.peft import read_config
from services.adapter_store.records import (
    AdapterVersion,
    Chunk,
    Provenance,
    Upload,
)
from services.adapter_store.signing import Grant
from services.adapter_store.staging import Staging
from services.adapter_store.weights import Weights
from services.core.base_model import BaseModel
from services.core.errors import (
    CorruptData,
    FailedPrecondition,
    InvalidAdapter,
    InvalidRequest,
    NotFound,
    OffsetMismatch,
    ResourceExhausted,
)
from services.core.types import AdapterName, TenantId
from services.runtime.beside import to_their_ends

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What one adapter, and one tenant, may take; all at least 1. Raises ValueError."""

    max_adapter_bytes: int = 4 * 1024**3
    max_rank: int = 256
    max_uploads: int = 16
    max_adapters: int = 10_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


class UploadRepository(VersionRepository, Protocol):
    async def open_upload(self, upload: Upload, *, most_uploads: int) -> Upload:
        """An unfinished upload of the same content, or this one. Raises ResourceExhausted."""
        ...

    async def upload(self, upload_id: str) -> tuple[Upload, AdapterVersion | None] | None: ...
    async def drop_upload(self, upload_id: str) -> None: ...


class Adapters(Protocol):
    async def newest(self, tenant: TenantId, name: str) -> AdapterVersion | None: ...
    async def count_adapters(self, tenant: TenantId) -> int: ...


class BaseModels(OneBaseModel, Protocol):
    async def base_models(self) -> list[BaseModel]: ...


class Uploads:
    """`tenant` None means the operator, who may touch everybody's."""

    def __init__(
        self,
        repository: UploadRepository,
        *,
        adapters: Adapters,
        base_models: BaseModels,
        weights: Weights,
        staging: Staging,
        limits: StoreLimits,
        door: Door | None = None,
    ) -> None:
        self._door = door or Door()
        self._repository = repository
        self._adapters = adapters
        self._base_models = base_models
        self._staging = staging
        self._limits = limits
        self._committing = Committing(
            repository,
            base_models=base_models,
            weights=weights,
            staging=staging,
            max_rank=limits.max_rank,
        )

    async def start(
        self,
        *,
        tenant: TenantId,
        adapter: str,
        config_json: str,
        size_bytes: int,
        sha256: str,
        base_model: str,
        provenance: Provenance,
        content_tag: str = "",
        header: bytes = b"",
    ) -> Upload:
        """With the file's `header` it is told what to send instead of the file as it is.

        Raises InvalidRequest, InvalidAdapter, FailedPrecondition or ResourceExhausted.
        """
        check_declaration(
            tenant=tenant,
            adapter=adapter,
            size_bytes=size_bytes,
            sha256=sha256,
            content_tag=content_tag,
            most_bytes=self._limits.max_adapter_bytes,
        )
        check_provenance(provenance)
        known = await self._adapters.newest(tenant, adapter)
        if known is None and (
            await self._adapters.count_adapters(tenant) >= self._limits.max_adapters
        ):
            raise ResourceExhausted(f"a tenant may have {self._limits.max_adapters} adapters")
        config = await asyncio.to_thread(read_config, config_json)
        models = await self._base_models.base_models()
        base = choose_base(models, chosen=base_model, stated=config.base_model)
        asked = Upload(
            id=secrets.token_hex(16),
            tenant=tenant,
            adapter=AdapterName(adapter),
            config_json=config_json,
            size_bytes=size_bytes,
            sha256=sha256,
            base_model=base.name,
            provenance=provenance,
            content_tag=content_tag,
        )
        if not header or sha256:  # that is the file's, as it is
            return await self._opened(asked)
        arrangement = await asyncio.to_thread(
            arrange, header, size_bytes, config, base, max_rank=self._limits.max_rank
        )
        return await self._opened_for(arrangement, asked)

    async def _opened(self, asked: Upload) -> Upload:
        upload = await self._repository.open_upload(asked, most_uploads=self._limits.max_uploads)
        return await self._with_progress(upload)

    async def _opened_for(self, arrangement: Arrangement, asked: Upload) -> Upload:
        upload = await self._opened(
            replace(
                asked,
                size_bytes=arrangement.size_bytes,
                content_tag=arrangement.tag(asked.content_tag),
            )
        )
        self._staging.expect(upload.id, arrangement)
        return replace(upload, arrangement=arrangement)

    async def write(self, chunks: AsyncIterator[Chunk], tenant: TenantId | None) -> Upload:
        """What was appended before an error stays, and is durable."""
        upload: Upload | None = None
        async for chunk in chunks:
            if upload is None:
                upload = await self._own(chunk.upload_id, tenant)
                writer = await self._writer(upload)
                break
        if upload is None:
            raise InvalidRequest.of("upload_id", "the stream was empty")
        try:
            await self._append(upload, chunk)
            async for following in chunks:
                if following.upload_id != upload.id:
                    raise InvalidRequest.of("upload_id", "must not change within a stream")
                await self._append(upload, following)
        finally:
            if self._staging.committed(upload.id):
                await asyncio.to_thread(self._staging.sync, upload.id)
            writer.release()
        return await self._with_progress(upload)

    async def _append(self, upload: Upload, chunk: Chunk) -> None:
        """To its end also if the call ends before: its thread must not meet the next writer."""
        await to_their_ends(lambda: self._staging.append(upload, chunk))

    async def _writer(self, upload: Upload) -> asyncio.Lock:
        """Held by us."""
        writer = self._staging.writer(upload.id)
        if writer.locked():
            raise FailedPrecondition("this upload is being written by another call")
        await writer.acquire()
        return writer

    async def stage(self, upload_id: str, tenant: TenantId | None) -> tuple[list[Piece], datetime]:
        """Where what lacks can be sent, and until when."""
        upload = await self._with_progress(await self._own(upload_id, tenant))
        expires = datetime.now(UTC) + URLS_LIVE
        return await self._door.pieces(upload, expires), expires

    async def admit(self, grant: Grant) -> Upload:
        """Whoever has a URL of it may receive into it, alone, until it is released.

        Raises NotFound, FailedPrecondition or OffsetMismatch.
        """
        upload = await self._own(grant.upload_id, None)
        writer = await self._writer(upload)
        if (committed := self._staging.committed(upload.id)) != grant.offset:
            writer.release()
            raise OffsetMismatch(committed, grant.offset)
        return upload

    async def release(self, upload: Upload) -> None:
        self._staging.writer(upload.id).release()

    async def get(self, upload_id: str, tenant: TenantId | None) -> Upload:
        return await self._with_progress(await self._own(upload_id, tenant))

    async def finish(
        self, upload_id: str, tenant: TenantId | None, sha256: str = ""
    ) -> AdapterVersion:
        """Idempotent. Raises InvalidAdapter or CorruptData, and then the upload is gone."""
        upload, done = await self._find(upload_id, tenant)
        if done is not None:
            return done
        if sha256 and upload.sha256 not in ("", sha256):
            raise InvalidRequest.of("sha256", "is not the one that the upload began with")
        if not HEX64.fullmatch(sha256 := sha256 or upload.sha256):
            raise InvalidRequest.of("sha256", "must be 64 hexadecimal digits")
        async with self._staging.writer(upload.id):
            try:
                await self._door.fetch(upload)
                version = await self._committing.commit(upload, sha256)
            except (InvalidAdapter, CorruptData):
                await self._repository.drop_upload(upload.id)
                await self._discard(upload)
                raise
            await self._discard(upload)
            return version

    async def _discard(self, upload: Upload) -> None:
        self._staging.discard(upload.id)
        await self._door.discard(upload.id)

    async def _find(
        self, upload_id: str, tenant: TenantId | None
    ) -> tuple[Upload, AdapterVersion | None]:
        found = (
            await self._repository.upload(upload_id) if _UPLOAD_ID.fullmatch(upload_id) else None
        )
        if found is None or tenant not in (None, found[0].tenant):
            raise NotFound("there is no such upload")
        return found

    async def _own(self, upload_id: str, tenant: TenantId | None) -> Upload:
        upload, done = await self._find(upload_id, tenant)
        if done is not None:
            raise FailedPrecondition("this upload is finished")
        return upload

    async def _with_progress(self, upload: Upload) -> Upload:
        """What we say is there survives a crash of the machine."""
        committed = await asyncio.to_thread(self._staging.durable, upload.id)
        return replace(upload, committed_bytes=committed)
