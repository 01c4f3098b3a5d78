"""The gateway's gRPC face for operators."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lorikeet.gateway.v1 import tenant_service_pb2 as pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as rpc
from services.core.errors import InvalidRequest
from services.core.types import Tier
from services.gateway.keys import Key
from services.gateway.tenants import Organisation, Tenant, Tenants
from services.runtime.interceptors import Context
from services.runtime.wire import tier_from_wire, tier_to_wire, time_to_wire


class TenantServicer(rpc.TenantServiceServicer):
    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    async def CreateTenant(
        self, request: pb.CreateTenantRequest, context: Context
    ) -> pb.CreateTenantResponse:
        weight = request.weight if request.HasField("weight") else 1.0
        highest_tier = tier_from_wire(request.highest_tier, "highest_tier") or Tier.DEFAULT
        tenant = await self._tenants.create(
            request.name, request.organisation, weight, highest_tier
        )
        return pb.CreateTenantResponse(tenant=_tenant(tenant))

    async def UpdateTenant(
        self, request: pb.UpdateTenantRequest, context: Context
    ) -> pb.UpdateTenantResponse:
        tenant = await self._tenants.change(
            request.name,
            organisation=request.organisation if request.HasField("organisation") else None,
            weight=request.weight if request.HasField("weight") else None,
            highest_tier=tier_from_wire(request.highest_tier, "highest_tier"),
        )
        return pb.UpdateTenantResponse(tenant=_tenant(tenant))

    async def ListTenants(
        self, request: pb.ListTenantsRequest, context: Context
    ) -> pb.ListTenantsResponse:
        tenants, following = await self._tenants.list_tenants(request.page_size, request.page_token)
        return pb.ListTenantsResponse(
            tenants=[_tenant(tenant) for tenant in tenants], next_page_token=following
        )

    async def CreateOrganisation(
        self, request: pb.CreateOrganisationRequest, context: Context
    ) -> pb.CreateOrganisationResponse:
        weight = request.weight if request.HasField("weight") else 1.0
        organisation = await self._tenants.create_organisation(request.name, weight)
        return pb.CreateOrganisationResponse(organisation=_organisation(organisation))

    async def UpdateOrganisation(
        self, request: pb.UpdateOrganisationRequest, context: Context
    ) -> pb.UpdateOrganisationResponse:
        organisation = await self._tenants.change_organisation(request.name, request.weight)
        return pb.UpdateOrganisationResponse(organisation=_organisation(organisation))

    async def ListOrganisations(
        self, request: pb.ListOrganisationsRequest, context: Context
    ) -> pb.ListOrganisationsResponse:
        found, following = await self._tenants.list_organisations(
            request.page_size, request.page_token
        )
        return pb.ListOrganisationsResponse(
            organisations=[_organisation(each) for each in found], next_page_token=following
        )

    async def CreateKey(
        self, request: pb.CreateKeyRequest, context: Context
    ) -> pb.CreateKeyResponse:
        expires = request.HasField("expire_time")
        key, secret = await self._tenants.create_key(
            request.tenant,
            request.label,
            expires=_moment("expire_time", request.expire_time) if expires else None,
            scopes=request.scopes,
        )
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

    async def RotateKey(
        self, request: pb.RotateKeyRequest, context: Context
    ) -> pb.RotateKeyResponse:
        key, secret = await self._tenants.rotate(request.id, _overlap(request.overlap))
        return pb.RotateKeyResponse(key=_key(key), secret=secret)


def _tenant(tenant: Tenant) -> pb.Tenant:
    return pb.Tenant(
        name=tenant.name,
        create_time=time_to_wire(tenant.created),
        organisation=tenant.organisation,
        weight=tenant.weight,
        highest_tier=tier_to_wire(tenant.highest_tier),
    )


def _organisation(organisation: Organisation) -> pb.Organisation:
    return pb.Organisation(name=organisation.name, weight=organisation.weight)


def _key(key: Key) -> pb.Key:
    return pb.Key(
        id=key.id,
        tenant=key.tenant,
        label=key.label,
        create_time=time_to_wire(key.created),
        revoke_time=None if key.revoked is None else time_to_wire(key.revoked),
        expire_time=None if key.expires is None else time_to_wire(key.expires),
        scopes=sorted(scope.value for scope in key.scopes or ()),
        previous_expire_time=None if key.previous is None else time_to_wire(key.previous.until),
    )


def _moment(field: str, stamp: Timestamp) -> datetime:
    """Raises InvalidRequest for one that no calendar has."""
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest.of(field, "is no time") from error


def _overlap(duration: Duration) -> timedelta:
    try:
        return duration.ToTimedelta()
    except (ValueError, OverflowError) as error:
        raise InvalidRequest.of("overlap", "is no duration") from error
