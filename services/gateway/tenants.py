"""Tenants, the organisations that they belong to, and the keys that speak for them."""

import hmac
import re
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from services.core.errors import FailedPrecondition, InvalidRequest, NotFound, Unauthenticated
from services.core.types import EQUAL, KeyId, Share, TenantId, Tier
from services.gateway.bearers import BearerRepository, Bearers
from services.gateway.keys import Key, Replaced, Secrets, fresh_id, id_in, scopes_named
from services.runtime.auth import Caller
from services.runtime.paging import Page, page_of

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1000.0
LONGEST_OVERLAP = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Tenant:
    name: TenantId
    created: datetime
    organisation: str = ""  # empty: it is one of its own
    weight: float = 1.0
    highest_tier: Tier = Tier.DEFAULT  # that its requests may ask for


@dataclass(frozen=True, slots=True)
class Organisation:
    name: str
    weight: float = 1.0


class TenantRepository(BearerRepository, Protocol):
    async def add_tenant(self, tenant: Tenant) -> None:
        """Raises AlreadyExists, or NotFound for its organisation."""
        ...

    async def change_tenant(
        self,
        name: TenantId,
        organisation: str | None,
        weight: float | None,
        highest_tier: Tier | None,
    ) -> Tenant:
        """What is None stays. Raises NotFound for it or its organisation."""
        ...

    async def tenants(self, *, after: str, limit: int) -> list[Tenant]: ...
    async def add_organisation(self, organisation: Organisation) -> None: ...  # AlreadyExists
    async def change_organisation(self, organisation: Organisation) -> None: ...  # NotFound
    async def organisations(self, *, after: str, limit: int) -> list[Organisation]: ...
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._secrets = Secrets(pepper)
        self._operator_token = operator_token.encode()
        self._now = now
        self._bearers = Bearers(repository, clock)

    async def create(
        self,
        name: str,
        organisation: str = "",
        weight: float = 1.0,
        highest_tier: Tier = Tier.DEFAULT,
    ) -> Tenant:
        _check_name(name)
        _check_weight(weight)
        tenant = Tenant(TenantId(name), self._now(), organisation, weight, highest_tier)
        await self._repository.add_tenant(tenant)
        return tenant

    async def change(
        self,
        name: str,
        *,
        organisation: str | None = None,
        weight: float | None = None,
        highest_tier: Tier | None = None,
    ) -> Tenant:
        """What is None stays; "" is no organisation. Requests that come from now on count so, at
        other gateways those that come after a second."""
        if weight is not None:
            _check_weight(weight)
        changed = await self._repository.change_tenant(
            TenantId(name), organisation, weight, highest_tier
        )
        self._bearers.forget()
        return changed

    async def list_tenants(self, page_size: int, page_token: str) -> tuple[list[Tenant], str]:
        page = Page.asked(page_size, page_token)
        found = await self._repository.tenants(after=page.after, limit=page.size + 1)
        return page_of(found, page, key=lambda tenant: tenant.name)

    async def create_organisation(self, name: str, weight: float = 1.0) -> Organisation:
        _check_name(name)
        _check_weight(weight)
        organisation = Organisation(name, weight)
        await self._repository.add_organisation(organisation)
        return organisation

    async def change_organisation(self, name: str, weight: float) -> Organisation:
        _check_weight(weight)
        organisation = Organisation(name, weight)
        await self._repository.change_organisation(organisation)
        self._bearers.forget()
        return organisation

    async def list_organisations(
        self, page_size: int, page_token: str
    ) -> tuple[list[Organisation], str]:
        page = Page.asked(page_size, page_token)
        found = await self._repository.organisations(after=page.after, limit=page.size + 1)
        return page_of(found, page, key=lambda organisation: organisation.name)

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
        self._bearers.forget()
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
        self._bearers.forget()
        return replace(key, revoked=now)

    async def authenticate(self, bearer: str, metadata: Mapping[str, str]) -> Caller:
        if hmac.compare_digest(bearer.encode(), self._operator_token):
            return Caller(None)
        asked = id_in(bearer)
        known = None if asked is None else self._bearers.known(asked)
        if known is not None:
            with suppress(Unauthenticated):  # it may have a new secret since
                return self._caller(known, bearer)
        found = None if asked is None else await self._bearers.look_up(asked)
        return self._caller(found, bearer)

    def _caller(self, found: tuple[Key, Share] | None, bearer: str) -> Caller:
        key, share = (None, EQUAL) if found is None else found
        key = self._secrets.check(key, bearer, self._now())
        return Caller(key.tenant, key.id, key.scopes, share)


def _check_name(name: str) -> None:
    """Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest.of("name", "1 to 63 of a-z, 0-9 and -, starting with a letter")


def _check_weight(weight: float) -> None:
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:  # nor is NaN
        raise InvalidRequest.of("weight", f"must be {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}")
