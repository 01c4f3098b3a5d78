"""Uploads: bytes that arrive in pieces, are checked, and become a version."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Protocol

from services.adapter_store.declaration import check_declaration, check_provenance, choose_base
from services.adapter_store.peft import read_config
from services.adapter_store.records import (
    AdapterVersion,
    Chunk,
    NewVersion,
    Provenance,
    Upload,
    VersionDetails,
)
from services.adapter_store.staging import Staging
from services.adapter_store.validation import validate
from services.adapter_store.weights import Weights
from services.core.base_model import BaseModel
from services.core.errors import (
    CorruptData,
    FailedPrecondition,
    InvalidAdapter,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
)
from services.core.types import AdapterName, TenantId

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


class UploadRepository(Protocol):
    async def open_upload(self, upload: Upload, *, most_uploads: int) -> Upload:
        """An unfinished upload of the same content, or this one. Raises ResourceExhausted."""
        ...

    async def upload(self, upload_id: str) -> tuple[Upload, AdapterVersion | None] | None: ...
    async def drop_upload(self, upload_id: str) -> None: ...
    async def commit(self, upload_id: str, version: NewVersion) -> AdapterVersion: ...


class Adapters(Protocol):
    async def newest(self, tenant: TenantId, name: str) -> AdapterVersion | None: ...
    async def count_adapters(self, tenant: TenantId) -> int: ...


class BaseModels(Protocol):
    async def base_models(self) -> list[BaseModel]: ...
    async def base_model(self, name: str) -> BaseModel | None: ...


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
    ) -> None:
        self._repository = repository
        self._adapters = adapters
        self._base_models = base_models
        self._weights = weights
        self._staging = staging
        self._limits = limits

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
    ) -> Upload:
        """Raises InvalidRequest, InvalidAdapter, FailedPrecondition or ResourceExhausted."""
        check_declaration(
            tenant=tenant,
            adapter=adapter,
            size_bytes=size_bytes,
            sha256=sha256,
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
        )
        upload = await self._repository.open_upload(asked, most_uploads=self._limits.max_uploads)
        return self._with_progress(upload)

    async def write(self, chunks: AsyncIterator[Chunk], tenant: TenantId | None) -> Upload:
        """What was appended before an error stays, and is durable."""
        upload: Upload | None = None
        async for chunk in chunks:
            if upload is None:
                upload = await self._own(chunk.upload_id, tenant)
                writer = self._staging.writer(upload.id)
                if writer.locked():
                    raise FailedPrecondition("this upload is being written by another call")
                await writer.acquire()
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
        return self._with_progress(upload)

    async def _append(self, upload: Upload, chunk: Chunk) -> None:
        """To its end also if the call ends before: its thread must not meet the next writer."""
        appending = asyncio.create_task(asyncio.to_thread(self._staging.append, upload, chunk))
        try:
            await asyncio.shield(appending)
        finally:
            await asyncio.wait([appending])

    async def get(self, upload_id: str, tenant: TenantId | None) -> Upload:
        return self._with_progress(await self._own(upload_id, tenant))

    async def finish(self, upload_id: str, tenant: TenantId | None) -> AdapterVersion:
        """Idempotent. Raises InvalidAdapter or CorruptData, and then the upload is gone."""
        upload, done = await self._find(upload_id, tenant)
        if done is not None:
            return done
        async with self._staging.writer(upload.id):
            try:
                version = await self._commit(upload)
            except (InvalidAdapter, CorruptData):
                await self._repository.drop_upload(upload.id)
                self._staging.discard(upload.id)
                raise
            self._staging.discard(upload.id)
            return version

    async def _commit(self, upload: Upload) -> AdapterVersion:
        base = await self._base_models.base_model(upload.base_model)
        assert base is not None  # they are never removed
        config = await asyncio.to_thread(read_config, upload.config_json)
        file = await asyncio.to_thread(self._staging.complete, upload)
        adapter = await asyncio.to_thread(
            validate, file, config, base, max_rank=self._limits.max_rank
        )
        await self._weights.keep(adapter.digest, adapter.pieces())
        version = NewVersion(
            tenant=upload.tenant,
            adapter=upload.adapter,
            digest=adapter.digest,
            base_model=base.name,
            base_fingerprint=base.fingerprint,
            size_bytes=adapter.size_bytes,
            max_rank=max(adapter.ranks.values()),
            module_count=len(adapter.ranks),
            parameter_count=adapter.parameter_count,
            provenance=upload.provenance,
            details=VersionDetails(upload.config_json, adapter.ranks),
        )
        return await self._repository.commit(upload.id, version)

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

    def _with_progress(self, upload: Upload) -> Upload:
        return replace(upload, committed_bytes=self._staging.committed(upload.id))
