"""The gateway's gRPC face for operators."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from lorikeet.gateway.v1 import tenant_service_pb2 as pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as rpc
from services.gateway.tenants import Key, Tenant, Tenants
from services.runtime.interceptors import Context


class TenantServicer(rpc.TenantServiceServicer):
    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    async def CreateTenant(
        self, request: pb.CreateTenantRequest, context: Context
    ) -> pb.CreateTenantResponse:
        return pb.CreateTenantResponse(tenant=_tenant(await self._tenants.create(request.name)))

    async def ListTenants(
        self, request: pb.ListTenantsRequest, context: Context
    ) -> pb.ListTenantsResponse:
        tenants, following = await self._tenants.list_tenants(request.page_size, request.page_token)
        return pb.ListTenantsResponse(
            tenants=[_tenant(tenant) for tenant in tenants], next_page_token=following
        )

    async def CreateKey(
        self, request: pb.CreateKeyRequest, context: Context
    ) -> pb.CreateKeyResponse:
        key, secret = await self._tenants.create_key(request.tenant, request.label)
        return pb.CreateKeyResponse(key=_key(key), secret=secret)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        keys, following = await self._tenants.list_keys(
            request.tenant, request.page_size, request.page_token
        )
        return pb.ListKeysResponse(keys=[_key(key) for key in keys], next_page_token=following)

    async def RevokeKey(
        self, request: pb.RevokeKeyRequest, context: Context
    ) -> pb.RevokeKeyResponse:
        return pb.RevokeKeyResponse(key=_key(await self._tenants.revoke(request.id)))


def _tenant(tenant: Tenant) -> pb.Tenant:
    return pb.Tenant(name=tenant.name, create_time=_time(tenant.created))


def _key(key: Key) -> pb.Key:
    return pb.Key(
        id=key.id,
        tenant=key.tenant,
        label=key.label,
        create_time=_time(key.created),
        revoke_time=None if key.revoked is None else _time(key.revoked),
    )


def _time(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
