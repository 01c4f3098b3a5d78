"""Tenants and the keys that speak for them."""

import hmac
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from services.core.errors import FailedPrecondition, InvalidRequest, NotFound
from services.core.types import KeyId, TenantId
from services.gateway.keys import Key, Replaced, Secrets, fresh_id, id_in, scopes_named
from services.runtime.auth import Caller
from services.runtime.paging import Page, page_of

_TENANT = re.compile(r"[a-z][a-z0-9-]{0,62}")
LONGEST_OVERLAP = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Tenant:
    name: TenantId
    created: datetime


class TenantRepository(Protocol):
    async def add_tenant(self, tenant: Tenant) -> None: ...  # raises AlreadyExists
    async def tenants(self, *, after: str, limit: int) -> list[Tenant]: ...
    async def add_key(self, key: Key) -> None: ...  # raises NotFound for an unknown tenant
    async def key(self, key: KeyId) -> Key | None: ...
    async def keys(self, tenant: TenantId, *, after: str, limit: int) -> list[Key]: ...
    async def revoke(self, key: KeyId, at: datetime) -> None: ...
    async def rotate(self, before: Key, after: Key) -> None:
        """Raises Aborted if the key is not as before any more."""
        ...


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
        self._secrets = Secrets(pepper)
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

    async def create_key(
        self,
        tenant: str,
        label: str,
        *,
        expires: datetime | None = None,
        scopes: Collection[str] = (),
    ) -> tuple[Key, str]:
        """The key and its secret, which is not kept. `scopes`: none named are all."""
        if len(label) > 100:
            raise InvalidRequest.of("label", "at most 100 characters")
        now = self._now()
        if expires is not None and expires <= now:
            raise InvalidRequest.of("expire_time", "must be in the future")
        key_id, allowed = fresh_id(), scopes_named(scopes)
        secret, its_hmac = self._secrets.fresh(key_id)
        key = Key(key_id, TenantId(tenant), label, its_hmac, now, expires=expires, scopes=allowed)
        await self._repository.add_key(key)
        return key, secret

    async def rotate(self, key_id: str, overlap: timedelta) -> tuple[Key, str]:
        """The key with a new secret; the one that it had works for the overlap. Raises
        FailedPrecondition if the key works no more."""
        if not timedelta() <= overlap <= LONGEST_OVERLAP:
            raise InvalidRequest.of("overlap", f"must be 0 to {LONGEST_OVERLAP.days} days")
        key, now = await self.key(key_id), self._now()
        if key.revoked is not None or (key.expires is not None and key.expires <= now):
            raise FailedPrecondition(f"key {key_id!r} works no more; create another")
        secret, its_hmac = self._secrets.fresh(key.id)
        previous = Replaced(key.secret_hmac, now + overlap) if overlap else None
        rotated = replace(key, secret_hmac=its_hmac, previous=previous)
        await self._repository.rotate(key, rotated)
        return rotated, secret

    async def key(self, key_id: str) -> Key:
        """Raises NotFound."""
        key = await self._repository.key(KeyId(key_id))
        if key is None:
            raise NotFound(f"there is no key {key_id!r}")
        return key

    async def list_keys(
        self, tenant: str, page_size: int, page_token: str
    ) -> tuple[list[Key], str]:
        page = Page.asked(page_size, page_token)
        found = await self._repository.keys(TenantId(tenant), after=page.after, limit=page.size + 1)
        return page_of(found, page, key=lambda key: key.id)

    async def revoke(self, key_id: str) -> Key:
        key = await self.key(key_id)
        if key.revoked is not None:
            return key
        now = self._now()
        await self._repository.revoke(key.id, now)
        return replace(key, revoked=now)

    async def authenticate(self, bearer: str, metadata: Mapping[str, str]) -> Caller:
        if hmac.compare_digest(bearer.encode(), self._operator_token):
            return Caller(None)
        asked = id_in(bearer)
        found = None if asked is None else await self._repository.key(asked)
        key = self._secrets.check(found, bearer, self._now())
        return Caller(key.tenant, key.id, key.scopes)
