"""Adapters that other tenants may use, as "owner/name", but not download."""

from typing import Protocol

from services.adapter_store.declaration import TENANT
from services.core.errors import InvalidRequest
from services.core.types import TenantId

EVERYBODY = "*"  # whom a share may be with; no tenant is called that


class ShareRepository(Protocol):
    async def share(self, tenant: TenantId, adapter: str, shared_with: str) -> None: ...
    async def unshare(self, tenant: TenantId, adapter: str, shared_with: str) -> None: ...
    async def shares(self, tenant: TenantId, adapter: str) -> list[str]: ...


class Sharing:
    def __init__(self, repository: ShareRepository) -> None:
        self._repository = repository

    async def share(self, tenant: TenantId, adapter: str, shared_with: str) -> None:
        """Repeating it changes nothing. Raises ModelNotFound or InvalidRequest."""
        _check(tenant, shared_with)
        await self._repository.share(tenant, adapter, shared_with)

    async def unshare(self, tenant: TenantId, adapter: str, shared_with: str) -> None:
        """Holds from the next request on. Raises ModelNotFound or InvalidRequest."""
        _check(tenant, shared_with)
        await self._repository.unshare(tenant, adapter, shared_with)

    async def shares(self, tenant: TenantId, adapter: str) -> list[str]:
        """With whom, by name."""
        return await self._repository.shares(tenant, adapter)


def _check(tenant: TenantId, shared_with: str) -> None:
    if shared_with == tenant or not (shared_with == EVERYBODY or TENANT.fullmatch(shared_with)):
        raise InvalidRequest.of("shared_with", 'must be another tenant, or "*" for all')
