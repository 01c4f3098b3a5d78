"""The adapter store on the wire."""

from collections.abc import AsyncIterator
from datetime import UTC

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from lorikeet.types.v1 import adapter_pb2
from services.adapter_store.catalog import Catalog
from services.adapter_store.records import Chunk, Provenance, Upload, VersionFilter
from services.adapter_store.resolution import Resolver
from services.adapter_store.uploads import Uploads
from services.adapter_store.wire import parts_to_wire, version_to_wire
from services.core.errors import ModelNotFound
from services.core.types import Digest
from services.runtime import call, wire
from services.runtime.interceptors import Context
from services.runtime.paging import MOST


class AdapterStoreServicer(rpc.AdapterStoreServiceServicer):
    def __init__(self, uploads: Uploads, catalog: Catalog, resolver: Resolver) -> None:
        self._uploads = uploads
        self._catalog = catalog
        self._resolver = resolver

    async def StartUpload(
        self, request: pb.StartUploadRequest, context: Context
    ) -> pb.StartUploadResponse:
        upload = await self._uploads.start(
            tenant=call.current().caller.acting_for(request.tenant),
            adapter=request.adapter,
            config_json=request.config_json,
            size_bytes=request.size_bytes,
            sha256=request.sha256,
            base_model=request.base_model,
            provenance=_provenance(request.provenance),
            content_tag=request.content_tag,
            header=request.header,
        )
        return pb.StartUploadResponse(upload=_upload(upload))

    async def WriteChunks(
        self, request_iterator: AsyncIterator[pb.WriteChunksRequest], context: Context
    ) -> pb.WriteChunksResponse:
        chunks = (
            Chunk(chunk.upload_id, chunk.offset, chunk.data, chunk.crc32)
            async for chunk in request_iterator
        )
        upload = await self._uploads.write(chunks, call.current().caller.tenant)
        return pb.WriteChunksResponse(upload=_upload(upload))

    async def StageUpload(
        self, request: pb.StageUploadRequest, context: Context
    ) -> pb.StageUploadResponse:
        tenant = call.current().caller.tenant
        pieces, expires = await self._uploads.stage(request.upload_id, tenant)
        response = pb.StageUploadResponse(
            pieces=[pb.StagePiece(url=p.url, offset=p.offset, length=p.length) for p in pieces]
        )
        response.expire_time.FromDatetime(expires)
        return response

    async def GetUpload(
        self, request: pb.GetUploadRequest, context: Context
    ) -> pb.GetUploadResponse:
        upload = await self._uploads.get(request.upload_id, call.current().caller.tenant)
        return pb.GetUploadResponse(upload=_upload(upload))

    async def FinishUpload(
        self, request: pb.FinishUploadRequest, context: Context
    ) -> pb.FinishUploadResponse:
        tenant = call.current().caller.tenant
        version = await self._uploads.finish(request.upload_id, tenant, request.sha256)
        return pb.FinishUploadResponse(version=version_to_wire(version))

    async def ResolveAdapter(
        self, request: pb.ResolveAdapterRequest, context: Context
    ) -> pb.ResolveAdapterResponse:
        current = call.current()
        found = await self._resolver.resolve(
            current.caller.acting_for(request.tenant),
            request.reference,
            request=current.request_id,
            as_of=request.as_of.ToDatetime(UTC) if request.HasField("as_of") else None,
        )
        return pb.ResolveAdapterResponse(
            version=version_to_wire(found.version),
            alias="" if found.via is None else found.via.alias,
            generation=0 if found.via is None else found.via.generation,
        )

    async def ListAdapters(
        self, request: pb.ListAdaptersRequest, context: Context
    ) -> pb.ListAdaptersResponse:
        tenant = call.current().caller.acting_for(request.tenant)
        found = self._catalog.list_shared if request.shared else self._catalog.list_adapters
        versions, following = await found(tenant, request.page_size, request.page_token)
        return pb.ListAdaptersResponse(
            versions=[version_to_wire(version) for version in versions], next_page_token=following
        )

    async def GetAdapter(
        self, request: pb.GetAdapterRequest, context: Context
    ) -> pb.GetAdapterResponse:
        tenant = call.current().caller.acting_for(request.tenant)
        versions, _ = await self._catalog.list_versions(
            tenant, request.adapter, VersionFilter(), MOST, ""
        )
        if not versions:
            raise ModelNotFound.named(request.adapter)
        details = await self._catalog.details(versions[0])
        return pb.GetAdapterResponse(
            versions=[version_to_wire(version) for version in versions],
            config_json=details.config_json,
        )

    async def GetVersion(
        self, request: pb.GetVersionRequest, context: Context
    ) -> pb.GetVersionResponse:
        current = call.current()
        found = await self._resolver.resolve(
            current.caller.acting_for(request.tenant), request.reference, request=current.request_id
        )
        details = await self._catalog.details(found.version)
        return pb.GetVersionResponse(
            version=version_to_wire(found.version),
            config_json=details.config_json,
            ranks=details.ranks,
        )

    async def ListVersions(
        self, request: pb.ListVersionsRequest, context: Context
    ) -> pb.ListVersionsResponse:
        shown = VersionFilter(
            base_model=request.base_model,
            labels=dict(request.labels),
            with_deleted=request.show_deleted,
        )
        versions, following = await self._catalog.list_versions(
            call.current().caller.acting_for(request.tenant),
            request.adapter,
            shown,
            request.page_size,
            request.page_token,
        )
        return pb.ListVersionsResponse(
            versions=[version_to_wire(version) for version in versions], next_page_token=following
        )

    async def Download(
        self, request: pb.DownloadRequest, context: Context
    ) -> AsyncIterator[pb.DownloadResponse]:
        pieces = self._catalog.download(
            Digest(request.digest),
            call.current().caller.tenant,
            start=request.offset,
            length=request.length,
        )
        async for data in pieces:
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
        parts=[] if upload.arrangement is None else parts_to_wire(upload.arrangement),
    )


def _provenance(message: adapter_pb2.Provenance) -> Provenance:
    return Provenance(
        created_by=call.current().caller.name,
        job=message.job,
        licence=message.licence,
        parents=tuple(message.parents),
        labels=dict(message.labels),
        metrics=dict(message.metrics),
    )
