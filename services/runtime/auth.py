"""Who calls, and whether they may. A method that no map names is refused."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from services.core.errors import PermissionDenied, Unauthenticated
from services.core.types import EQUAL, KeyId, Share, TenantId

# Set by the gateway inside the suite, dropped at its edge.
TENANT_METADATA = "x-lorikeet-tenant"
KEY_METADATA = "x-lorikeet-key"


class Scope(Enum):
    PUBLIC = "public"
    TENANT = "tenant"  # a tenant by any key of its, or the operator
    GENERATE = "generate"  # a tenant by a key that may, or the operator
    ADAPTERS_READ = "adapters:read"
    ADAPTERS_WRITE = "adapters:write"
    OPERATOR = "operator"


KEY_SCOPES = frozenset({Scope.GENERATE, Scope.ADAPTERS_READ, Scope.ADAPTERS_WRITE})
"""That a key may have, or not."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The operator (no tenant) or somebody who speaks for one tenant, by a key of its."""

    tenant: TenantId | None
    key: KeyId | None = None
    scopes: frozenset[Scope] | None = None  # None: all
    share: Share = EQUAL  # of the tenant

    @property
    def name(self) -> str:
        """For histories: "tenant/key"."""
        if self.tenant is None:
            return "operator"
        return self.tenant if self.key is None else f"{self.tenant}/{self.key}"

    def need(self, scope: Scope) -> None:
        """Raises PermissionDenied."""
        if scope is Scope.OPERATOR and self.tenant is not None:
            raise PermissionDenied("this needs the operator's token")
        if scope in KEY_SCOPES and self.scopes is not None and scope not in self.scopes:
            raise PermissionDenied(f"this key lacks the scope {scope.value!r}")

    def acting_for(self, tenant: str) -> TenantId:
        """The tenant that a request is about; the caller's own unless the operator names one."""
        if self.tenant is None and not tenant:
            raise PermissionDenied("name a tenant")
        if self.tenant is not None and tenant not in ("", self.tenant):
            raise PermissionDenied("this key speaks for another tenant")
        return self.tenant or TenantId(tenant)


class Authenticator(Protocol):
    async def authenticate(self, bearer: str, metadata: Mapping[str, str]) -> Caller: ...


class ServiceToken:
    """Inside the suite: one shared token, optionally on behalf of a tenant's key."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def authenticate(self, bearer: str, metadata: Mapping[str, str]) -> Caller:
        if not hmac.compare_digest(bearer.encode(), self._token.encode()):
            raise Unauthenticated("the service token is wrong")
        tenant = metadata.get(TENANT_METADATA)
        if not tenant:
            return Caller(None)
        key = metadata.get(KEY_METADATA)
        return Caller(TenantId(tenant), KeyId(key) if key else None)


class Gate:
    """Lets a call through if its method's scope allows its caller."""

    def __init__(self, authenticator: Authenticator, scopes: Mapping[str, Scope]) -> None:
        self._authenticator = authenticator
        self._scopes = {**_STANDARD, **scopes}

    async def admit(self, method: str, metadata: Mapping[str, str]) -> Caller | None:
        scope = self._scopes.get(method)
        if scope is Scope.PUBLIC:
            return None
        if scope is None:
            raise PermissionDenied(f"{method} is not open to anybody")
        caller = await self._authenticator.authenticate(
            bearer_of(metadata.get("authorization", "")), metadata
        )
        caller.need(scope)
        return caller


def bearer_of(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated('send your key as "authorization: Bearer <key>"')
    return token.strip()


_STANDARD = {
    "/grpc.health.v1.Health/Check": Scope.PUBLIC,
    "/grpc.health.v1.Health/List": Scope.PUBLIC,
    "/grpc.health.v1.Health/Watch": Scope.PUBLIC,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Scope.PUBLIC,
}
