"""The suite's other services, as the gateway calls them."""

from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import TypeVar

import grpc

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as store_pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as store_rpc
from lorikeet.types.v1 import adapter_pb2
from services.core.base_model import BaseModel
from services.core.types import Digest, Fingerprint, RequestId, TenantId
from services.gateway.course import Adapter
from services.runtime import wire
from services.runtime.client import bearer
from services.runtime.status import from_rpc_error

CONTROL_SECONDS = 10.0  # a look-up or a placement that takes longer has failed

T = TypeVar("T")


class StoreClient:
    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub = store_rpc.AdapterStoreServiceStub(channel)
        self._token = token

    async def base_models(self) -> list[BaseModel]:
        response = await _answer(
            self._stub.ListBaseModels(
                store_pb.ListBaseModelsRequest(),
                metadata=bearer(self._token),
                timeout=CONTROL_SECONDS,
            )
        )
        return [wire.base_model_from_wire(model) for model in response.base_models]

    async def tokenizer_json(self, name: str) -> bytes:
        response = await _answer(
            self._stub.GetBaseModel(
                store_pb.GetBaseModelRequest(name=name),
                metadata=bearer(self._token),
                timeout=CONTROL_SECONDS,
            )
        )
        return response.base_model.tokenizer_json

    async def resolve(self, tenant: TenantId, reference: str, request: RequestId) -> Adapter:
        response = await _answer(
            self._stub.ResolveAdapter(
                store_pb.ResolveAdapterRequest(reference=reference),
                metadata=bearer(self._token, tenant=tenant, request_id=request),
                timeout=CONTROL_SECONDS,
            )
        )
        return _adapter(response.version)

    async def adapters(self, tenant: TenantId) -> list[Adapter]:
        """The tenant's own by name, then those that others share, as "owner/name"."""
        own = [_adapter(version) async for version in self._listed(tenant, shared=False)]
        shared = [
            replace(_adapter(version), name=f"{version.tenant}/{version.adapter}")
            async for version in self._listed(tenant, shared=True)
        ]
        return own + shared

    async def _listed(
        self, tenant: TenantId, *, shared: bool
    ) -> AsyncIterator[adapter_pb2.AdapterVersion]:
        request = store_pb.ListAdaptersRequest(page_size=1000, shared=shared)
        while True:
            page = await _answer(
                self._stub.ListAdapters(
                    request, metadata=bearer(self._token, tenant=tenant), timeout=CONTROL_SECONDS
                )
            )
            for version in page.versions:
                yield version
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error


def _adapter(version: adapter_pb2.AdapterVersion) -> Adapter:
    return Adapter(
        name=version.adapter,
        owner=TenantId(version.tenant),
        number=version.number,
        digest=Digest(version.digest),
        base_model=version.base_model,
        base_fingerprint=Fingerprint(version.base_fingerprint),
        created_seconds=version.create_time.seconds,
        rank=version.max_rank,
        size_bytes=version.size_bytes,
    )
