"""Aliases, shares, deletion and changes on the wire."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as rpc
from services.adapter_store.catalog import Catalog
from services.adapter_store.changes import Changes
from services.adapter_store.collection import Collector
from services.adapter_store.lifecycle import Lifecycle
from services.adapter_store.records import Ask
from services.adapter_store.resolution import Resolver
from services.adapter_store.sharing import Sharing
from services.adapter_store.wire import (
    alias_to_wire,
    split_from_wire,
    told_to_wire,
    version_to_wire,
)
from services.core.errors import ModelNotFound
from services.core.types import TenantId
from services.runtime import call
from services.runtime.interceptors import Context


class AdapterLifecycleServicer(rpc.AdapterLifecycleServiceServicer):
    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        resolver: Resolver,
        catalog: Catalog,
        sharing: Sharing,
        collector: Collector,
        changes: Changes,
    ) -> None:
        self._lifecycle = lifecycle
        self._catalog = catalog
        self._resolver = resolver
        self._sharing = sharing
        self._collector = collector
        self._changes = changes

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:
        move = await self._lifecycle.set_alias(
            _tenant(request.tenant),
            request.adapter,
            request.alias,
            request.version,
            _ask(request.options),
        )
        return pb.SetAliasResponse(alias=alias_to_wire(move))

    async def Promote(self, request: pb.PromoteRequest, context: Context) -> pb.PromoteResponse:
        move = await self._lifecycle.promote(
            _tenant(request.tenant), request.adapter, request.version, _ask(request.options)
        )
        return pb.PromoteResponse(alias=alias_to_wire(move))

    async def Rollback(self, request: pb.RollbackRequest, context: Context) -> pb.RollbackResponse:
        move = await self._lifecycle.rollback(
            _tenant(request.tenant), request.adapter, request.alias, _ask(request.options)
        )
        return pb.RollbackResponse(alias=alias_to_wire(move))

    async def SetCanary(
        self, request: pb.SetCanaryRequest, context: Context
    ) -> pb.SetCanaryResponse:
        move = await self._lifecycle.canary(
            _tenant(request.tenant),
            request.adapter,
            request.alias,
            to=request.version,
            percent=request.percent,
            split=split_from_wire(request.split),
            ask=_ask(request.options),
        )
        return pb.SetCanaryResponse(alias=alias_to_wire(move))

    async def DeleteAlias(
        self, request: pb.DeleteAliasRequest, context: Context
    ) -> pb.DeleteAliasResponse:
        move = await self._lifecycle.delete_alias(
            _tenant(request.tenant), request.adapter, request.alias, _ask(request.options)
        )
        return pb.DeleteAliasResponse(alias=alias_to_wire(move))

    async def ListAliases(
        self, request: pb.ListAliasesRequest, context: Context
    ) -> pb.ListAliasesResponse:
        moves = await self._lifecycle.aliases(_tenant(request.tenant), request.adapter)
        return pb.ListAliasesResponse(aliases=[alias_to_wire(move) for move in moves])

    async def ListAliasHistory(
        self, request: pb.ListAliasHistoryRequest, context: Context
    ) -> pb.ListAliasHistoryResponse:
        moves, following = await self._lifecycle.history(
            _tenant(request.tenant),
            request.adapter,
            request.alias,
            request.page_size,
            request.page_token,
        )
        return pb.ListAliasHistoryResponse(
            moves=[alias_to_wire(move) for move in moves], next_page_token=following
        )

    async def ShareAdapter(
        self, request: pb.ShareAdapterRequest, context: Context
    ) -> pb.ShareAdapterResponse:
        await self._sharing.share(_tenant(request.tenant), request.adapter, request.shared_with)
        return pb.ShareAdapterResponse()

    async def UnshareAdapter(
        self, request: pb.UnshareAdapterRequest, context: Context
    ) -> pb.UnshareAdapterResponse:
        await self._sharing.unshare(_tenant(request.tenant), request.adapter, request.shared_with)
        return pb.UnshareAdapterResponse()

    async def ListShares(
        self, request: pb.ListSharesRequest, context: Context
    ) -> pb.ListSharesResponse:
        shares = await self._sharing.shares(_tenant(request.tenant), request.adapter)
        return pb.ListSharesResponse(shared_with=shares)

    async def DeleteVersion(
        self, request: pb.DeleteVersionRequest, context: Context
    ) -> pb.DeleteVersionResponse:
        version = await self._catalog.delete_version(
            _tenant(request.tenant), request.adapter, request.number
        )
        return pb.DeleteVersionResponse(version=version_to_wire(version))

    async def UndeleteVersion(
        self, request: pb.UndeleteVersionRequest, context: Context
    ) -> pb.UndeleteVersionResponse:
        version = await self._catalog.undelete_version(
            _tenant(request.tenant), request.adapter, request.number
        )
        return pb.UndeleteVersionResponse(version=version_to_wire(version))

    async def DeleteAdapter(
        self, request: pb.DeleteAdapterRequest, context: Context
    ) -> pb.DeleteAdapterResponse:
        await self._catalog.delete_adapter(_tenant(request.tenant), request.adapter)
        return pb.DeleteAdapterResponse()

    async def UndeleteAdapter(
        self, request: pb.UndeleteAdapterRequest, context: Context
    ) -> pb.UndeleteAdapterResponse:
        await self._catalog.undelete_adapter(_tenant(request.tenant), request.adapter)
        return pb.UndeleteAdapterResponse()

    async def VerifyVersion(
        self, request: pb.VerifyVersionRequest, context: Context
    ) -> pb.VerifyVersionResponse:
        tenant = _tenant(request.tenant)
        found = await self._resolver.resolve(tenant, request.reference, request="")
        if found.version.tenant != tenant:
            raise ModelNotFound.named(request.reference)
        good = await self._collector.verify(found.version.digest)
        return pb.VerifyVersionResponse(version=version_to_wire(found.version), damaged=not good)

    async def CollectGarbage(
        self, request: pb.CollectGarbageRequest, context: Context
    ) -> pb.CollectGarbageResponse:
        collected = await self._collector.collect()
        return pb.CollectGarbageResponse(
            versions=collected.versions,
            blobs=collected.blobs,
            uploads=collected.uploads,
            changes=collected.changes,
        )

    async def Watch(
        self, request: pb.WatchRequest, context: Context
    ) -> AsyncIterator[pb.WatchResponse]:
        is_operator = call.current().caller.tenant is None and not request.tenant
        viewer = None if is_operator else _tenant(request.tenant)
        after = request.after if request.HasField("after") else None
        async with aclosing(self._changes.watch(viewer, after)) as told:
            async for one in told:
                yield told_to_wire(one)


def _tenant(named: str) -> TenantId:
    return call.current().caller.acting_for(named)


def _ask(options: pb.MoveOptions) -> Ask:
    expected = options.expected_generation if options.HasField("expected_generation") else None
    return Ask(
        by=call.current().caller.name,
        reason=options.reason,
        expected_generation=expected,
        request_id=options.request_id or None,
    )
