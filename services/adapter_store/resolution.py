"""What a reference means: [owner/]name[@number, @digest or @alias]."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.adapter_store.aliases import PRODUCTION, drawn
from services.adapter_store.records import AdapterVersion, Meaning, Move
from services.core.errors import ModelNotFound
from services.core.types import TenantId

_DIGEST_PREFIX = re.compile(r"[0-9a-f]{12,64}")
_NUMBER = re.compile(r"[0-9]{1,9}")


class Versions(Protocol):
    async def newest(
        self, tenant: TenantId, name: str, *, as_of: datetime | None = None
    ) -> AdapterVersion | None: ...
    async def numbered(self, tenant: TenantId, name: str, number: int) -> AdapterVersion | None: ...
    async def by_digest(self, tenant: TenantId, name: str, prefix: str) -> list[AdapterVersion]: ...


class Aliases(Protocol):
    async def meaning(self, tenant: TenantId, adapter: str, alias: str) -> Meaning:
        """What it points to now; the newest version for one that was never set."""
        ...

    async def alias(
        self, tenant: TenantId, adapter: str, alias: str, *, as_of: datetime | None = None
    ) -> Move | None: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    owner: TenantId
    name: str
    caller: TenantId
    request: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A version, and the generation of the alias that led to it, if one did."""

    version: AdapterVersion
    via: Move | None = None


class Shares(Protocol):
    async def allows(self, owner: TenantId, adapter: str, tenant: TenantId) -> bool: ...


class Resolver:
    def __init__(self, versions: Versions, aliases: Aliases, shares: Shares) -> None:
        self._versions = versions
        self._aliases = aliases
        self._shares = shares

    async def resolve(
        self, tenant: TenantId, reference: str, *, request: str, as_of: datetime | None = None
    ) -> Resolved:
        """`request` draws a canary's share by request. Raises ModelNotFound, whatever the cause.

        A name alone means its alias "production", or the newest version before that is first set.
        """
        path, separator, which = reference.partition("@")
        owner, named, name = path.rpartition("/")
        asked = _Asked(TenantId(owner) if named else tenant, name, tenant, request)
        if (separator and not which) or not await self._may_use(asked):
            raise ModelNotFound.named(reference)
        found = await self._find(asked, which, as_of)
        if found is None:
            raise ModelNotFound.named(reference)
        return found

    async def _may_use(self, asked: _Asked) -> bool:
        if asked.owner == asked.caller:
            return True
        return await self._shares.allows(asked.owner, asked.name, asked.caller)

    async def _find(self, asked: _Asked, which: str, as_of: datetime | None) -> Resolved | None:
        tenant, name = asked.owner, asked.name
        if _NUMBER.fullmatch(which):
            return _plain(await self._versions.numbered(tenant, name, int(which)))
        if _DIGEST_PREFIX.fullmatch(which):
            found = await self._versions.by_digest(tenant, name, which)
            return _plain(found[0]) if len({v.digest for v in found}) == 1 else None
        meaning = await (
            self._aliases.meaning(tenant, name, which or PRODUCTION)
            if as_of is None
            else self._at(as_of, tenant, name, which or PRODUCTION)
        )
        if meaning.move is None:
            return _plain(meaning.versions[0]) if meaning.versions and not which else None
        if meaning.move.target is None:
            return None
        alias = f"{tenant}/{name}@{meaning.move.alias}"
        number = drawn(meaning.move.target, alias, tenant=asked.caller, request=asked.request)
        version = meaning.numbered(number)
        return None if version is None else Resolved(version, meaning.move)

    async def _at(self, as_of: datetime, tenant: TenantId, name: str, alias: str) -> Meaning:
        move = await self._aliases.alias(tenant, name, alias, as_of=as_of)
        if move is None:
            found = [await self._versions.newest(tenant, name, as_of=as_of)]
        else:
            found = [
                await self._versions.numbered(tenant, name, number)
                for number in (() if move.target is None else move.target.numbers)
            ]
        return Meaning(move, [version for version in found if version is not None])


def _plain(version: AdapterVersion | None) -> Resolved | None:
    return None if version is None else Resolved(version)
