"""Limits as the operator sets them, and as tenants read them."""

from collections.abc import Callable, Mapping
from typing import Protocol

from services.core.errors import FieldViolation, InvalidRequest, NotFound
from services.core.types import TenantId
from services.gateway.keys import Key
from services.policies.quotas import Account

MOST = 2**62


class LimitRepository(Protocol):
    async def quota(self, tenant: TenantId, key: str) -> Account: ...
    async def set_limits(
        self, tenant: TenantId, key: str, changes: Mapping[str, int | None]
    ) -> None: ...  # raises NotFound for an unknown tenant


class Keys(Protocol):
    async def key(self, key_id: str) -> Key: ...  # raises NotFound


class LimitBook:
    """`key`: of the tenant's; "" for the tenant with all of them."""

    def __init__(
        self, repository: LimitRepository, keys: Keys, changed: Callable[[TenantId], None]
    ) -> None:
        """`changed` hears whose limits were changed here."""
        self._repository = repository
        self._keys = keys
        self._changed = changed

    async def quota(self, tenant: TenantId, key: str) -> Account:
        await self._check(tenant, key)
        return await self._repository.quota(tenant, key)

    async def change(
        self, tenant: TenantId, key: str, changes: Mapping[str, int | None]
    ) -> Account:
        """Limits by name; None lifts one. Raises InvalidRequest."""
        wrong = [
            FieldViolation(f"limits.{name}", "must be 0 or more")
            for name, value in changes.items()
            if value is not None and not 0 <= value <= MOST
        ]
        if wrong:
            raise InvalidRequest(wrong)
        await self._check(tenant, key)
        await self._repository.set_limits(tenant, key, changes)
        self._changed(tenant)
        return await self._repository.quota(tenant, key)

    async def _check(self, tenant: TenantId, key: str) -> None:
        if key and (await self._keys.key(key)).tenant != tenant:
            raise NotFound(f"there is no key {key!r}")
