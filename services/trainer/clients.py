"""The adapter store, as the trainer calls it."""

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import grpc

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as lifecycle_pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as lifecycle_rpc
from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from lorikeet.types.v1.adapter_pb2 import AdapterVersion
from lorikeet.types.v1.adapter_pb2 import Provenance as ProvenanceMessage
from services.core.base_model import BaseModel
from services.core.types import Digest, KeyId, TenantId
from services.runtime import wire
from services.runtime.client import Metadata, bearer
from services.runtime.status import from_rpc_error
from services.trainer.jobs import Job, Published
from services.trainer.publication import JOB_LABEL, Provenance

CONTROL_SECONDS = 10.0
UPLOAD_SECONDS = 600.0
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

T = TypeVar("T")


class StoreClient:
    """A publication.Store, and what is known of base models."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._store = rpc.AdapterStoreServiceStub(channel)
        self._lifecycle = lifecycle_rpc.AdapterLifecycleServiceStub(channel)
        self._token = token

    async def base_models(self) -> list[BaseModel]:
        """Without tokenizers."""
        request = pb.ListBaseModelsRequest()
        call = self._store.ListBaseModels(
            request, metadata=bearer(self._token), timeout=CONTROL_SECONDS
        )
        return [wire.base_model_from_wire(model) for model in (await _answer(call)).base_models]

    async def base_model(self, name: str) -> BaseModel:
        """Raises NotFound."""
        request = pb.GetBaseModelRequest(name=name)
        call = self._store.GetBaseModel(
            request, metadata=bearer(self._token), timeout=CONTROL_SECONDS
        )
        return wire.base_model_from_wire((await _answer(call)).base_model)

    async def version_of(self, job: Job) -> Published | None:
        request = pb.ListVersionsRequest(
            adapter=job.adapter, labels={JOB_LABEL: job.id}, page_size=1
        )
        call = self._store.ListVersions(
            request, metadata=self._as_maker(job), timeout=CONTROL_SECONDS
        )
        found = (await _answer(call)).versions
        return _published(found[0]) if found else None

    async def upload(self, job: Job, folder: Path, provenance: Provenance) -> Published:
        weights, who = folder / WEIGHTS, self._as_maker(job)
        digest = await asyncio.to_thread(_sha256, weights)
        request = pb.StartUploadRequest(
            adapter=job.adapter,
            config_json=(folder / CONFIG).read_text(),
            size_bytes=weights.stat().st_size,
            sha256=digest,
            base_model=job.base_model,
            provenance=ProvenanceMessage(
                job=job.id, labels=provenance.labels, metrics=provenance.metrics
            ),
        )
        started = self._store.StartUpload(request, metadata=who, timeout=CONTROL_SECONDS)
        upload = (await _answer(started)).upload
        if upload.committed_bytes < upload.size_bytes:
            chunks = _chunks(weights, upload)
            await _answer(self._store.WriteChunks(chunks, metadata=who, timeout=UPLOAD_SECONDS))
        finish = pb.FinishUploadRequest(upload_id=upload.id)
        call = self._store.FinishUpload(finish, metadata=who, timeout=UPLOAD_SECONDS)
        return _published((await _answer(call)).version)

    async def set_alias(self, job: Job, alias: str, version: Published) -> None:
        options = lifecycle_pb.MoveOptions(request_id=job.id, reason=f"trained by {job.id}")
        request = lifecycle_pb.SetAliasRequest(
            adapter=job.adapter, alias=alias, version=str(version.number), options=options
        )
        await _answer(
            self._lifecycle.SetAlias(request, metadata=self._as_maker(job), timeout=CONTROL_SECONDS)
        )

    def _as_maker(self, job: Job) -> Metadata:
        """On behalf of whoever made the job."""
        key = job.created_by.removeprefix(job.tenant).removeprefix("/")
        known = job.created_by.startswith(f"{job.tenant}/")
        return bearer(self._token, tenant=TenantId(job.tenant), key=KeyId(key) if known else None)


async def _chunks(file: Path, upload: pb.Upload) -> AsyncIterator[pb.WriteChunksRequest]:
    offset = upload.committed_bytes
    with file.open("rb") as opened:  # read in a thread
        opened.seek(offset)
        while data := await asyncio.to_thread(opened.read, upload.chunk_bytes):
            yield pb.WriteChunksRequest(
                upload_id=upload.id, offset=offset, data=data, crc32=zlib.crc32(data)
            )
            offset += len(data)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _published(version: AdapterVersion) -> Published:
    return Published(version.number, Digest(version.digest))


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
