"""What adapters and base models there are: listed, read, deleted and brought back."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Protocol

from services.adapter_store.declaration import HEX64
from services.adapter_store.records import AdapterVersion, VersionDetails, VersionFilter
from services.adapter_store.weights import Weights
from services.core.base_model import BaseModel
from services.core.errors import InvalidRequest, NotFound
from services.core.types import Digest, TenantId
from services.runtime.paging import Page, page_of


class VersionRepository(Protocol):
    async def details(self, version: AdapterVersion) -> VersionDetails: ...
    async def versions(
        self,
        tenant: TenantId,
        name: str,
        shown: VersionFilter,
        *,
        before: int | None,
        limit: int,
    ) -> list[AdapterVersion]: ...
    async def adapters(
        self, tenant: TenantId, *, after: str, limit: int
    ) -> list[AdapterVersion]: ...
    async def shared(
        self, tenant: TenantId, *, after: tuple[str, str], limit: int
    ) -> list[AdapterVersion]: ...
    async def may_read(self, tenant: TenantId, digest: Digest) -> bool: ...
    async def delete_version(self, tenant: TenantId, name: str, number: int) -> AdapterVersion: ...
    async def undelete_version(
        self, tenant: TenantId, name: str, number: int, *, within: timedelta
    ) -> AdapterVersion: ...
    async def delete_adapter(self, tenant: TenantId, name: str) -> None: ...
    async def undelete_adapter(self, tenant: TenantId, name: str, *, within: timedelta) -> None: ...


class BaseModelRepository(Protocol):
    async def register(self, model: BaseModel) -> BaseModel: ...
    async def base_models(self) -> list[BaseModel]: ...
    async def base_model(self, name: str) -> BaseModel | None: ...


class Catalog:
    """What was deleted can be brought back for `undelete_within`."""

    def __init__(
        self,
        versions: VersionRepository,
        *,
        base_models: BaseModelRepository,
        weights: Weights,
        undelete_within: timedelta,
    ) -> None:
        self._versions = versions
        self._base_models = base_models
        self._weights = weights
        self._undelete_within = undelete_within

    async def list_adapters(
        self, tenant: TenantId, page_size: int, page_token: str
    ) -> tuple[list[AdapterVersion], str]:
        """The newest version of each, by name."""
        page = Page.asked(page_size, page_token)
        found = await self._versions.adapters(tenant, after=page.after, limit=page.size + 1)
        return page_of(found, page, key=lambda version: version.adapter)

    async def list_shared(
        self, tenant: TenantId, page_size: int, page_token: str
    ) -> tuple[list[AdapterVersion], str]:
        """What others share with the tenant: the newest version of each, by owner and name."""
        page = Page.asked(page_size, page_token)
        owner, _, name = page.after.partition("/")
        found = await self._versions.shared(tenant, after=(owner, name), limit=page.size + 1)
        return page_of(found, page, key=lambda version: f"{version.tenant}/{version.adapter}")

    async def list_versions(
        self,
        tenant: TenantId,
        adapter: str,
        shown: VersionFilter,
        page_size: int,
        page_token: str,
    ) -> tuple[list[AdapterVersion], str]:
        """Newest first; none for an adapter that does not exist."""
        page = Page.asked(page_size, page_token)
        found = await self._versions.versions(
            tenant, adapter, shown, before=page.before, limit=page.size + 1
        )
        return page_of(found, page, key=lambda version: str(version.number))

    async def details(self, version: AdapterVersion) -> VersionDetails:
        return await self._versions.details(version)

    async def delete_version(self, tenant: TenantId, adapter: str, number: int) -> AdapterVersion:
        """Raises ModelNotFound, or FailedPrecondition while an alias points to it."""
        return await self._versions.delete_version(tenant, adapter, number)

    async def undelete_version(self, tenant: TenantId, adapter: str, number: int) -> AdapterVersion:
        """Raises ModelNotFound, or FailedPrecondition once it is too late."""
        return await self._versions.undelete_version(
            tenant, adapter, number, within=self._undelete_within
        )

    async def delete_adapter(self, tenant: TenantId, adapter: str) -> None:
        """Its versions and aliases come back with it. Raises ModelNotFound."""
        await self._versions.delete_adapter(tenant, adapter)

    async def undelete_adapter(self, tenant: TenantId, adapter: str) -> None:
        """Raises ModelNotFound, or FailedPrecondition once it is too late."""
        await self._versions.undelete_adapter(tenant, adapter, within=self._undelete_within)

    async def download(
        self, digest: Digest, tenant: TenantId | None, *, start: int = 0, length: int = 0
    ) -> AsyncIterator[bytes]:
        """`length` 0 means to the end; `tenant` None the operator, who may read everything.

        Raises NotFound for what is not there or not the tenant's.
        """
        if not HEX64.fullmatch(digest):
            raise InvalidRequest.of("digest", "must be 64 hexadecimal digits")
        if tenant is not None and not await self._versions.may_read(tenant, digest):
            raise NotFound(f"there are no weights {digest[:12]}")
        async for data in self._weights.read(digest, start=start, length=length):
            yield data

    async def register_base_model(self, model: BaseModel) -> BaseModel:
        """Raises FailedPrecondition if the name stands for other weights."""
        if not (model.name and HEX64.fullmatch(model.fingerprint) and model.modules):
            raise InvalidRequest.of("base_model", "needs a name, a fingerprint and modules")
        return await self._base_models.register(model)

    async def list_base_models(self) -> list[BaseModel]:
        return await self._base_models.base_models()

    async def get_base_model(self, name: str) -> BaseModel:
        model = await self._base_models.base_model(name)
        if model is None:
            raise NotFound(f"there is no base model {name!r}")
        return model
