"""Tenants and the keys that speak for them."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from services.core.errors import InvalidRequest, NotFound, Unauthenticated
from services.core.types import KeyId, TenantId
from services.runtime.auth import Caller
from services.runtime.paging import Page, page_of

_TENANT = re.compile(r"[a-z][a-z0-9-]{0,62}")
_SECRET = re.compile(r"lk_([a-z0-9]{8})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Tenant:
    name: TenantId
    created: datetime


@dataclass(frozen=True, slots=True)
class Key:
    """The secret itself is not kept: only its HMAC-SHA256 under the gateway's pepper."""

    id: KeyId
    tenant: TenantId
    label: str
    secret_hmac: str
    created: datetime
    revoked: datetime | None = None


class TenantRepository(Protocol):
    async def add_tenant(self, tenant: Tenant) -> None: ...  # raises AlreadyExists
    async def tenants(self, *, after: str, limit: int) -> list[Tenant]: ...
    async def add_key(self, key: Key) -> None: ...  # raises NotFound for an unknown tenant
    async def key(self, key: KeyId) -> Key | None: ...
    async def keys(self, tenant: TenantId, *, after: str, limit: int) -> list[Key]: ...
    async def revoke(self, key: KeyId, at: datetime) -> None: ...


class Tenants:
    """Also an Authenticator: a bearer is the operator's token or a tenant's key."""

    def __init__(
        self,
        repository: TenantRepository,
        *,
        pepper: str,
        operator_token: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._repository = repository
        self._pepper = pepper.encode()
        self._operator_token = operator_token.encode()
        self._now = now

    async def create(self, name: str) -> Tenant:
        if not _TENANT.fullmatch(name):
            raise InvalidRequest.of("name", "1 to 63 of a-z, 0-9 and -, starting with a letter")
        tenant = Tenant(TenantId(name), self._now())
        await self._repository.add_tenant(tenant)
        return tenant

    async def list_tenants(self, page_size: int, page_token: str) -> tuple[list[Tenant], str]:
        page = Page.asked(page_size, page_token)
        found = await self._repository.tenants(after=page.after, limit=page.size + 1)
        return page_of(found, page, key=lambda tenant: tenant.name)

    async def create_key(self, tenant: str, label: str) -> tuple[Key, str]:
        """The key and its secret, which is not kept."""
        if len(label) > 100:
            raise InvalidRequest.of("label", "at most 100 characters")
        key_id = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(8))
        secret = f"lk_{key_id}_{secrets.token_urlsafe(32)}"
        key = Key(KeyId(key_id), TenantId(tenant), label, self._hmac(secret), self._now())
        await self._repository.add_key(key)
        return key, secret

    async def list_keys(
        self, tenant: str, page_size: int, page_token: str
    ) -> tuple[list[Key], str]:
        page = Page.asked(page_size, page_token)
        found = await self._repository.keys(TenantId(tenant), after=page.after, limit=page.size + 1)
        return page_of(found, page, key=lambda key: key.id)

    async def revoke(self, key_id: str) -> Key:
        key = await self._repository.key(KeyId(key_id))
        if key is None:
            raise NotFound(f"there is no key {key_id!r}")
        if key.revoked is not None:
            return key
        now = self._now()
        await self._repository.revoke(key.id, now)
        return replace(key, revoked=now)

    async def authenticate(self, bearer: str, metadata: Mapping[str, str]) -> Caller:
        if hmac.compare_digest(bearer.encode(), self._operator_token):
            return Caller(None)
        form = _SECRET.fullmatch(bearer)
        key = await self._repository.key(KeyId(form[1])) if form else None
        if key is None or not hmac.compare_digest(key.secret_hmac, self._hmac(bearer)):
            raise Unauthenticated("the key is not known")
        if key.revoked is not None:
            raise Unauthenticated("the key was revoked")
        return Caller(key.tenant, key.id)

    def _hmac(self, secret: str) -> str:
        return hmac.new(self._pepper, secret.encode(), hashlib.sha256).hexdigest()
