"""The adapter store on the wire."""

from collections.abc import AsyncIterator

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from lorikeet.types.v1 import adapter_pb2
from services.adapter_store.catalog import Catalog
from services.adapter_store.records import AdapterVersion, Chunk, Upload
from services.core.types import Digest
from services.runtime import call, wire
from services.runtime.interceptors import Context


class AdapterStoreServicer(rpc.AdapterStoreServiceServicer):
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def StartUpload(
        self, request: pb.StartUploadRequest, context: Context
    ) -> pb.StartUploadResponse:
        upload = await self._catalog.start_upload(
            tenant=call.current().caller.acting_for(request.tenant),
            adapter=request.adapter,
            config_json=request.config_json,
            size_bytes=request.size_bytes,
            sha256=request.sha256,
            base_model=request.base_model,
        )
        return pb.StartUploadResponse(upload=_upload(upload))

    async def WriteChunks(
        self, request_iterator: AsyncIterator[pb.WriteChunksRequest], context: Context
    ) -> pb.WriteChunksResponse:
        chunks = (
            Chunk(chunk.upload_id, chunk.offset, chunk.data, chunk.crc32)
            async for chunk in request_iterator
        )
        upload = await self._catalog.write_chunks(chunks, call.current().caller.tenant)
        return pb.WriteChunksResponse(upload=_upload(upload))

    async def GetUpload(
        self, request: pb.GetUploadRequest, context: Context
    ) -> pb.GetUploadResponse:
        upload = await self._catalog.get_upload(request.upload_id, call.current().caller.tenant)
        return pb.GetUploadResponse(upload=_upload(upload))

    async def FinishUpload(
        self, request: pb.FinishUploadRequest, context: Context
    ) -> pb.FinishUploadResponse:
        tenant = call.current().caller.tenant
        version = await self._catalog.finish_upload(request.upload_id, tenant)
        return pb.FinishUploadResponse(version=_version(version))

    async def ResolveAdapter(
        self, request: pb.ResolveAdapterRequest, context: Context
    ) -> pb.ResolveAdapterResponse:
        tenant = call.current().caller.acting_for(request.tenant)
        version = await self._catalog.resolve(tenant, request.reference)
        return pb.ResolveAdapterResponse(version=_version(version))

    async def ListAdapters(
        self, request: pb.ListAdaptersRequest, context: Context
    ) -> pb.ListAdaptersResponse:
        tenant = call.current().caller.acting_for(request.tenant)
        versions, following = await self._catalog.list_adapters(
            tenant, request.page_size, request.page_token
        )
        return pb.ListAdaptersResponse(
            versions=[_version(version) for version in versions], next_page_token=following
        )

    async def GetAdapter(
        self, request: pb.GetAdapterRequest, context: Context
    ) -> pb.GetAdapterResponse:
        tenant = call.current().caller.acting_for(request.tenant)
        versions, config_json = await self._catalog.get_adapter(tenant, request.adapter)
        return pb.GetAdapterResponse(
            versions=[_version(version) for version in versions], config_json=config_json
        )

    async def Download(
        self, request: pb.DownloadRequest, context: Context
    ) -> AsyncIterator[pb.DownloadResponse]:
        async for data in self._catalog.download(Digest(request.digest)):
            yield pb.DownloadResponse(data=data)

    async def RegisterBaseModel(
        self, request: pb.RegisterBaseModelRequest, context: Context
    ) -> pb.RegisterBaseModelResponse:
        known = await self._catalog.register_base_model(
            wire.base_model_from_wire(request.base_model)
        )
        return pb.RegisterBaseModelResponse(
            base_model=wire.base_model_to_wire(known, with_tokenizer=False)
        )

    async def ListBaseModels(
        self, request: pb.ListBaseModelsRequest, context: Context
    ) -> pb.ListBaseModelsResponse:
        models = await self._catalog.list_base_models()
        return pb.ListBaseModelsResponse(
            base_models=[wire.base_model_to_wire(model, with_tokenizer=False) for model in models]
        )

    async def GetBaseModel(
        self, request: pb.GetBaseModelRequest, context: Context
    ) -> pb.GetBaseModelResponse:
        model = await self._catalog.get_base_model(request.name)
        return pb.GetBaseModelResponse(base_model=wire.base_model_to_wire(model))


def _upload(upload: Upload) -> pb.Upload:
    return pb.Upload(
        id=upload.id,
        committed_bytes=upload.committed_bytes,
        size_bytes=upload.size_bytes,
        chunk_bytes=upload.chunk_bytes,
    )


def _version(version: AdapterVersion) -> adapter_pb2.AdapterVersion:
    return adapter_pb2.AdapterVersion(
        tenant=version.tenant,
        adapter=version.adapter,
        number=version.number,
        digest=version.digest,
        base_model=version.base_model,
        base_fingerprint=version.base_fingerprint,
        size_bytes=version.size_bytes,
        max_rank=version.max_rank,
        module_count=version.module_count,
        parameter_count=version.parameter_count,
        create_time=wire.time_to_wire(version.created),
    )
