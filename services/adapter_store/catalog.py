"""What adapters exist: uploads, versions and the base models that they are for."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from services.adapter_store.blobs import Blobs
from services.adapter_store.declaration import HEX64, check_declaration, choose_base
from services.adapter_store.peft import read_config
from services.adapter_store.records import AdapterVersion, Chunk, NewVersion, Upload
from services.adapter_store.staging import Staging
from services.adapter_store.validation import validate
from services.core.base_model import BaseModel
from services.core.errors import (
    CorruptData,
    FailedPrecondition,
    InvalidAdapter,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    ResourceExhausted,
)
from services.core.types import AdapterName, Digest, TenantId
from services.runtime.paging import Page, page_of

_DIGEST_PREFIX = re.compile(r"[0-9a-f]{12,64}")
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What one adapter, and one tenant, may take; all at least 1. Raises ValueError."""

    max_adapter_bytes: int = 1024**3
    max_rank: int = 256
    max_uploads: int = 16
    max_adapters: int = 10_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


class AdapterRepository(Protocol):
    async def open_upload(self, upload: Upload, *, most_uploads: int) -> Upload:
        """An unfinished upload of the same content, or this one. Raises ResourceExhausted."""
        ...

    async def upload(self, upload_id: str) -> tuple[Upload, AdapterVersion | None] | None: ...
    async def drop_upload(self, upload_id: str) -> None: ...
    async def commit(self, upload_id: str, version: NewVersion) -> AdapterVersion: ...
    async def count_adapters(self, tenant: TenantId) -> int: ...
    async def newest(self, tenant: TenantId, name: str) -> AdapterVersion | None: ...
    async def numbered(self, tenant: TenantId, name: str, number: int) -> AdapterVersion | None: ...
    async def by_digest(self, tenant: TenantId, name: str, prefix: str) -> list[AdapterVersion]: ...
    async def versions(self, tenant: TenantId, name: str) -> list[AdapterVersion]: ...
    async def newest_config(self, tenant: TenantId, name: str) -> str: ...
    async def adapters(
        self, tenant: TenantId, *, after: str, limit: int
    ) -> list[AdapterVersion]: ...
    async def register(self, model: BaseModel) -> BaseModel: ...
    async def base_models(self) -> list[BaseModel]: ...
    async def base_model(self, name: str) -> BaseModel | None: ...


class Catalog:
    """`tenant` None means the operator, who may touch everybody's uploads."""

    def __init__(
        self,
        repository: AdapterRepository,
        blobs: Blobs,
        uploads_folder: Path,
        limits: StoreLimits,
    ) -> None:
        self._repository = repository
        self._blobs = blobs
        self._staging = Staging(uploads_folder)
        self._limits = limits

    async def start_upload(
        self,
        *,
        tenant: TenantId,
        adapter: str,
        config_json: str,
        size_bytes: int,
        sha256: str,
        base_model: str,
    ) -> Upload:
        """Raises InvalidRequest, InvalidAdapter, FailedPrecondition or ResourceExhausted."""
        check_declaration(
            tenant=tenant,
            adapter=adapter,
            size_bytes=size_bytes,
            sha256=sha256,
            most_bytes=self._limits.max_adapter_bytes,
        )
        known = await self._repository.newest(tenant, adapter)
        if known is None and (
            await self._repository.count_adapters(tenant) >= self._limits.max_adapters
        ):
            raise ResourceExhausted(f"a tenant may have {self._limits.max_adapters} adapters")
        config = await asyncio.to_thread(read_config, config_json)
        models = await self._repository.base_models()
        base = choose_base(models, chosen=base_model, stated=config.base_model)
        asked = Upload(
            id=secrets.token_hex(16),
            tenant=tenant,
            adapter=AdapterName(adapter),
            config_json=config_json,
            size_bytes=size_bytes,
            sha256=sha256,
            base_model=base.name,
        )
        upload = await self._repository.open_upload(asked, most_uploads=self._limits.max_uploads)
        return self._with_progress(upload)

    async def write_chunks(self, chunks: AsyncIterator[Chunk], tenant: TenantId | None) -> Upload:
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
            await asyncio.to_thread(self._staging.append, upload, chunk)
            async for following in chunks:
                if following.upload_id != upload.id:
                    raise InvalidRequest.of("upload_id", "must not change within a stream")
                await asyncio.to_thread(self._staging.append, upload, following)
        finally:
            if self._staging.committed(upload.id):
                await asyncio.to_thread(self._staging.sync, upload.id)
            writer.release()
        return self._with_progress(upload)

    async def get_upload(self, upload_id: str, tenant: TenantId | None) -> Upload:
        return self._with_progress(await self._own(upload_id, tenant))

    async def finish_upload(self, upload_id: str, tenant: TenantId | None) -> AdapterVersion:
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

    async def resolve(self, tenant: TenantId, reference: str) -> AdapterVersion:
        """ "name", "name@number" or "name@digest". Raises ModelNotFound."""
        name, _, which = reference.partition("@")
        found = await self._resolve(tenant, name, which)
        if found is None or (reference.endswith("@")):
            raise ModelNotFound.named(reference)
        return found

    async def list_adapters(
        self, tenant: TenantId, page_size: int, page_token: str
    ) -> tuple[list[AdapterVersion], str]:
        page = Page.asked(page_size, page_token)
        found = await self._repository.adapters(tenant, after=page.after, limit=page.size + 1)
        return page_of(found, page, key=lambda version: version.adapter)

    async def get_adapter(self, tenant: TenantId, name: str) -> tuple[list[AdapterVersion], str]:
        """Newest first, and the newest one's configuration. Raises ModelNotFound."""
        versions = await self._repository.versions(tenant, name)
        if not versions:
            raise ModelNotFound.named(name)
        return versions, await self._repository.newest_config(tenant, name)

    async def download(self, digest: Digest) -> AsyncIterator[bytes]:
        if not HEX64.fullmatch(digest):
            raise InvalidRequest.of("digest", "must be 64 hexadecimal digits")
        async for data in self._blobs.read(digest):
            yield data

    async def register_base_model(self, model: BaseModel) -> BaseModel:
        """Raises FailedPrecondition if the name stands for other weights."""
        if not (model.name and HEX64.fullmatch(model.fingerprint) and model.modules):
            raise InvalidRequest.of("base_model", "needs a name, a fingerprint and modules")
        return await self._repository.register(model)

    async def list_base_models(self) -> list[BaseModel]:
        return await self._repository.base_models()

    async def get_base_model(self, name: str) -> BaseModel:
        model = await self._repository.base_model(name)
        if model is None:
            raise NotFound(f"there is no base model {name!r}")
        return model

    async def _commit(self, upload: Upload) -> AdapterVersion:
        base = await self.get_base_model(upload.base_model)
        config = await asyncio.to_thread(read_config, upload.config_json)
        data = await asyncio.to_thread(self._staging.read, upload)
        adapter = await asyncio.to_thread(
            validate, data, config, base, max_rank=self._limits.max_rank
        )
        await self._blobs.put(adapter.digest, adapter.data)
        version = NewVersion(
            tenant=upload.tenant,
            adapter=upload.adapter,
            digest=adapter.digest,
            base_model=base.name,
            base_fingerprint=base.fingerprint,
            size_bytes=len(adapter.data),
            max_rank=adapter.max_rank,
            module_count=adapter.module_count,
            parameter_count=adapter.parameter_count,
            config_json=upload.config_json,
        )
        return await self._repository.commit(upload.id, version)

    async def _resolve(self, tenant: TenantId, name: str, which: str) -> AdapterVersion | None:
        if not which:
            return await self._repository.newest(tenant, name)
        if which.isascii() and which.isdigit() and len(which) < 10:
            return await self._repository.numbered(tenant, name, int(which))
        if not _DIGEST_PREFIX.fullmatch(which):
            return None
        found = await self._repository.by_digest(tenant, name, which)
        return found[0] if len({version.digest for version in found}) == 1 else None

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
