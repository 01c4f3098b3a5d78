"""Which version an alias means: set, promoted, rolled back, tried on some, and since when."""

from datetime import datetime
from typing import Protocol

from services.adapter_store import aliases
from services.adapter_store.aliases import PRODUCTION, Decide, check_name
from services.adapter_store.records import Ask, Move, MoveKind, Split
from services.adapter_store.resolution import Resolver
from services.core.errors import InvalidRequest, NotFound
from services.core.types import TenantId
from services.runtime.paging import Page, page_of

MOST_REASON = 1024
MOST_REQUEST_ID = 64


class AliasRepository(Protocol):
    async def move(
        self, tenant: TenantId, adapter: str, alias: str, decide: Decide, ask: Ask
    ) -> Move:
        """The generation that `decide` leads to, durable; the newest one if it leads nowhere.

        Raises Aborted if that was not ask.expected_generation, ModelNotFound for an adapter that
        does not exist, FailedPrecondition for versions that do not, and whatever `decide` raises.
        """
        ...

    async def alias(
        self, tenant: TenantId, adapter: str, alias: str, *, as_of: datetime | None = None
    ) -> Move | None: ...
    async def aliases(self, tenant: TenantId, adapter: str) -> list[Move]: ...
    async def history(
        self, tenant: TenantId, adapter: str, alias: str, *, before: int | None, limit: int
    ) -> list[Move]: ...


class Lifecycle:
    """References name versions as Resolver reads them, without owner and adapter: "3", a digest,
    or another alias."""

    def __init__(self, repository: AliasRepository, resolver: Resolver) -> None:
        self._repository = repository
        self._resolver = resolver

    async def set_alias(
        self, tenant: TenantId, adapter: str, alias: str, to: str, ask: Ask
    ) -> Move:
        """Raises Aborted, ModelNotFound, InvalidRequest."""
        number = await self._number(tenant, adapter, to)
        return await self._move(
            tenant, adapter, alias, lambda now, _: aliases.pointed(now, number, MoveKind.SET), ask
        )

    async def promote(self, tenant: TenantId, adapter: str, to: str, ask: Ask) -> Move:
        """`to`, or the canary that runs if that is empty, becomes production."""
        number = await self._number(tenant, adapter, to) if to else None
        return await self._move(
            tenant, adapter, PRODUCTION, lambda now, _: aliases.promoted(now, number), ask
        )

    async def rollback(self, tenant: TenantId, adapter: str, alias: str, ask: Ask) -> Move:
        """See aliases.rolled_back; raises FailedPrecondition if there is nothing to go back to."""
        return await self._move(tenant, adapter, alias or PRODUCTION, aliases.rolled_back, ask)

    async def canary(
        self,
        tenant: TenantId,
        adapter: str,
        alias: str,
        *,
        to: str,
        percent: int,
        split: Split,
        ask: Ask,
    ) -> Move:
        """`to` gets `percent` of what comes for the alias; 0 ends it."""
        number = await self._number(tenant, adapter, to) if percent else 0
        return await self._move(
            tenant,
            adapter,
            alias or PRODUCTION,
            lambda now, _: aliases.with_canary(now, number, percent, split),
            ask,
        )

    async def delete_alias(self, tenant: TenantId, adapter: str, alias: str, ask: Ask) -> Move:
        """Its history stays. Raises NotFound if it was never set."""
        if await self._repository.alias(tenant, adapter, alias) is None:
            raise NotFound(f"{adapter} has no alias {alias!r}")
        return await self._move(tenant, adapter, alias, lambda now, _: aliases.deleted(now), ask)

    async def aliases(self, tenant: TenantId, adapter: str) -> list[Move]:
        """The newest generation of each that points somewhere, by name."""
        return await self._repository.aliases(tenant, adapter)

    async def history(
        self, tenant: TenantId, adapter: str, alias: str, page_size: int, page_token: str
    ) -> tuple[list[Move], str]:
        """Newest first."""
        page = Page.asked(page_size, page_token)
        found = await self._repository.history(
            tenant,
            adapter,
            alias or PRODUCTION,
            before=page.before,
            limit=page.size + 1,
        )
        return page_of(found, page, key=lambda move: str(move.generation))

    async def _number(self, tenant: TenantId, adapter: str, to: str) -> int:
        if not to:
            raise InvalidRequest.of("version", "name a version: a number, a digest or an alias")
        found = await self._resolver.resolve(tenant, f"{adapter}@{to}", request="")
        return found.version.number

    async def _move(
        self, tenant: TenantId, adapter: str, alias: str, decide: Decide, ask: Ask
    ) -> Move:
        check_name(alias)
        if len(ask.reason) > MOST_REASON:
            raise InvalidRequest.of("reason", f"at most {MOST_REASON} characters")
        if ask.request_id is not None and not 1 <= len(ask.request_id) <= MOST_REQUEST_ID:
            raise InvalidRequest.of("request_id", f"1 to {MOST_REQUEST_ID} characters")
        return await self._repository.move(tenant, adapter, alias, decide, ask)
