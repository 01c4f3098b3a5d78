"""Versions in SQL: found, listed, deleted and brought back."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, bindparam, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import aliased

from services.adapter_store.models import (
    AdapterRow,
    AdapterVersionRow,
    AliasRow,
    BlobRow,
    ShareRow,
    UploadRow,
)
from services.adapter_store.records import (
    AdapterVersion,
    Provenance,
    VersionDetails,
    VersionFilter,
)
from services.adapter_store.repositories import changes
from services.adapter_store.sharing import EVERYBODY
from services.core.changes import Change, ChangeKind
from services.core.errors import FailedPrecondition, ModelNotFound
from services.core.types import AdapterName, Digest, Fingerprint, TenantId
from services.runtime.db import now_us, time_of, us_of, writing

Row = AdapterVersionRow

_MICROSECOND = timedelta(microseconds=1)
_OF_ADAPTER = (AdapterRow.tenant == Row.tenant) & (AdapterRow.name == Row.adapter)


# An adapter's versions, unless they or it were deleted; built once, as SQLAlchemy takes longer to
# build a statement than SQLite to execute it.
_ANY = select(Row).where(Row.tenant == bindparam("tenant"), Row.adapter == bindparam("adapter"))
LIVE = _ANY.join(AdapterRow, _OF_ADAPTER).where(
    Row.deleted_us.is_(None), AdapterRow.deleted_us.is_(None)
)
NEWEST = LIVE.order_by(Row.number.desc()).limit(1)
_NUMBERED = LIVE.where(Row.number == bindparam("number"))


class SqlVersionRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def newest(
        self, tenant: TenantId, name: str, *, as_of: datetime | None = None
    ) -> AdapterVersion | None:
        """Now, or of those that had been committed at a moment."""
        query = NEWEST
        if as_of is not None:
            query = query.where(Row.created_us <= us_of(as_of))
        return await self._one(query, tenant=tenant, adapter=name)

    async def numbered(self, tenant: TenantId, name: str, number: int) -> AdapterVersion | None:
        return await self._one(_NUMBERED, tenant=tenant, adapter=name, number=number)

    async def by_digest(self, tenant: TenantId, name: str, prefix: str) -> list[AdapterVersion]:
        query = LIVE.where(Row.digest.startswith(prefix, autoescape=True))
        return await self._all(query, tenant=tenant, adapter=name)

    async def details(self, version: AdapterVersion) -> VersionDetails:
        query = select(Row.config_json, Row.ranks).where(
            Row.tenant == version.tenant,
            Row.adapter == version.adapter,
            Row.number == version.number,
        )
        async with self._sessions() as session:
            config_json, ranks = (await session.execute(query)).one()
            return VersionDetails(config_json, ranks)

    async def versions(
        self,
        tenant: TenantId,
        name: str,
        shown: VersionFilter,
        *,
        before: int | None,
        limit: int,
    ) -> list[AdapterVersion]:
        """Those numbered below `before`, newest first."""
        query = _ANY if shown.with_deleted else LIVE
        if before is not None:
            query = query.where(Row.number < before)
        if shown.base_model:
            query = query.where(Row.base_model == shown.base_model)
        for key, value in shown.labels.items():
            query = query.where(Row.provenance["labels", key].as_string() == value)
        query = query.order_by(Row.number.desc()).limit(limit)
        return await self._all(query, tenant=tenant, adapter=name)

    async def adapters(self, tenant: TenantId, *, after: str, limit: int) -> list[AdapterVersion]:
        """The newest version of each adapter, by name."""
        own = _newest_of_each().where(AdapterRow.tenant == tenant, AdapterRow.name > after)
        return await self._all(own.order_by(AdapterRow.name).limit(limit))

    async def shared(
        self, tenant: TenantId, *, after: tuple[str, str], limit: int
    ) -> list[AdapterVersion]:
        """The newest version of each that another tenant shares with this one, by their names."""
        names = AdapterRow.tenant, AdapterRow.name
        with_it = (
            select(ShareRow.tenant)
            .where(ShareRow.tenant == AdapterRow.tenant, ShareRow.adapter == AdapterRow.name)
            .where(ShareRow.shared_with.in_((tenant, EVERYBODY)))
        )
        theirs = _newest_of_each().where(
            with_it.exists(), AdapterRow.tenant != tenant, tuple_(*names) > after
        )
        return await self._all(theirs.order_by(*names).limit(limit))

    async def count_adapters(self, tenant: TenantId) -> int:
        """Those with a version."""
        query = (
            select(func.count())
            .select_from(AdapterRow)
            .where(AdapterRow.tenant == tenant, AdapterRow.deleted_us.is_(None))
            .where(select(Row.id).where(_OF_ADAPTER, Row.deleted_us.is_(None)).exists())
        )
        async with self._sessions() as session:
            return (await session.scalar(query)) or 0

    async def may_read(self, tenant: TenantId, digest: Digest) -> bool:
        """Whether the tenant has a version with these weights."""
        query = (
            select(Row.id)
            .join(AdapterRow, _OF_ADAPTER)
            .where(Row.digest == digest, Row.tenant == tenant)
            .where(Row.deleted_us.is_(None), AdapterRow.deleted_us.is_(None))
        )
        async with self._sessions() as session:
            return await session.scalar(query.limit(1)) is not None

    async def delete_version(self, tenant: TenantId, name: str, number: int) -> AdapterVersion:
        """Raises ModelNotFound, or FailedPrecondition while an alias points to it."""
        async with writing(self._sessions) as session:
            row = await _locked(session, tenant, name, number)
            points = (AliasRow.version_id == row.id) | (AliasRow.canary_version_id == row.id)
            alias = await session.scalar(select(AliasRow.name).where(points).limit(1))
            if alias is not None:
                raise FailedPrecondition(
                    f"{name}@{alias} points to version {number}; move it first"
                )
            if row.deleted_us is None:
                row.deleted_us = now_us()
                await changes.record(session, told_of(ChangeKind.VERSION_DELETED, row))
            return version_of(row)

    async def undelete_version(
        self, tenant: TenantId, name: str, number: int, *, within: timedelta
    ) -> AdapterVersion:
        """Raises ModelNotFound, or FailedPrecondition once it is too late."""
        async with writing(self._sessions) as session:
            row = await _locked(session, tenant, name, number)
            _check_window(row.deleted_us, within)
            if row.deleted_us is not None:
                row.deleted_us = None
                await changes.record(session, told_of(ChangeKind.VERSION_UNDELETED, row))
            return version_of(row)

    async def delete_adapter(self, tenant: TenantId, name: str) -> None:
        """With all its versions and aliases, which stay as they are. Raises ModelNotFound."""
        async with writing(self._sessions) as session:
            row = await session.get(AdapterRow, (tenant, name), with_for_update=True)
            if row is None:
                raise ModelNotFound.named(name)
            if row.deleted_us is None:
                row.deleted_us = now_us()
                told = Change(kind=ChangeKind.ADAPTER_DELETED, tenant=tenant, adapter=name)
                await changes.record(session, told)

    async def undelete_adapter(self, tenant: TenantId, name: str, *, within: timedelta) -> None:
        """Raises ModelNotFound, or FailedPrecondition once it is too late."""
        async with writing(self._sessions) as session:
            row = await session.get(AdapterRow, (tenant, name), with_for_update=True)
            if row is None:
                raise ModelNotFound.named(name)
            _check_window(row.deleted_us, within)
            if row.deleted_us is not None:
                row.deleted_us = None
                told = Change(kind=ChangeKind.ADAPTER_UNDELETED, tenant=tenant, adapter=name)
                await changes.record(session, told)

    async def purge(self, *, deleted_for: timedelta, grace: timedelta, limit: int) -> int:
        """Versions deleted for so long go for good; what they leave is kept for `grace`."""
        before = now_us() - deleted_for // _MICROSECOND
        async with writing(self._sessions) as session:
            await _spread_deletion(session, before)
            old = select(Row.id, Row.digest).where(Row.deleted_us <= before).with_for_update()
            found = list(await session.execute(old.limit(limit)))
            if not found:
                return 0
            ids = [version_id for version_id, _ in found]
            await session.execute(delete(UploadRow).where(UploadRow.version_id.in_(ids)))
            await session.execute(delete(Row).where(Row.id.in_(ids)))
            await session.execute(
                update(BlobRow)
                .where(BlobRow.digest.in_([digest for _, digest in found]))
                .values(leased_until_us=now_us() + grace // _MICROSECOND)
            )
            return len(found)

    async def _all(self, query: Select[Row], **bound: str) -> list[AdapterVersion]:
        async with self._sessions() as session:
            return [version_of(row) for row in await session.scalars(query, bound)]

    async def _one(self, query: Select[Row], **bound: str | int) -> AdapterVersion | None:
        async with self._sessions() as session:
            row = await session.scalar(query, bound)
            return None if row is None else version_of(row)


def _newest_of_each() -> Select[Row]:
    """Adapter by adapter, so that a page costs no more than its own adapters do."""
    other = aliased(Row)
    newest = (
        select(func.max(other.number))
        .where(other.tenant == AdapterRow.tenant, other.adapter == AdapterRow.name)
        .where(other.deleted_us.is_(None))
        .correlate(AdapterRow)
        .scalar_subquery()
    )
    return (
        select(Row)
        .select_from(AdapterRow)
        .join(Row, _OF_ADAPTER & (Row.number == newest))
        .where(AdapterRow.deleted_us.is_(None))
    )


async def _locked(session: AsyncSession, tenant: TenantId, name: str, number: int) -> Row:
    """With its adapter, so that no alias comes to point to it meanwhile."""
    adapter = await session.get(AdapterRow, (tenant, name), with_for_update=True)
    query = select(Row).where(Row.tenant == tenant, Row.adapter == name, Row.number == number)
    row: Row | None = await session.scalar(query)
    if adapter is None or adapter.deleted_us is not None or row is None:
        raise ModelNotFound.named(f"{name}@{number}")
    return row


async def _spread_deletion(session: AsyncSession, before: int) -> None:
    """What an adapter that was deleted for good had is deleted with it; its name is free again."""
    gone = select(AdapterRow).where(AdapterRow.deleted_us <= before).with_for_update()
    for adapter in await session.scalars(gone):
        for kind, values in (
            (AliasRow, {"version_id": None, "canary_version_id": None}),
            (Row, {"deleted_us": before}),
        ):
            of_it = (kind.tenant == adapter.tenant) & (kind.adapter == adapter.name)
            await session.execute(update(kind).where(of_it).values(**values))
        shares = (ShareRow.tenant == adapter.tenant) & (ShareRow.adapter == adapter.name)
        await session.execute(delete(ShareRow).where(shares))
        adapter.deleted_us = None


def _check_window(deleted_us: int | None, within: timedelta) -> None:
    if deleted_us is not None and now_us() - deleted_us > within // _MICROSECOND:
        raise FailedPrecondition("it was deleted too long ago")


def told_of(kind: ChangeKind, row: Row) -> Change:
    return Change(
        kind=kind,
        tenant=TenantId(row.tenant),
        adapter=row.adapter,
        number=row.number,
        digest=Digest(row.digest),
        base_model=row.base_model,
    )


def provenance_of(stored: dict[str, Any]) -> Provenance:
    return Provenance(**(stored | {"parents": tuple(stored.get("parents", ()))}))


def version_of(row: Row) -> AdapterVersion:
    return AdapterVersion(
        tenant=TenantId(row.tenant),
        adapter=AdapterName(row.adapter),
        number=row.number,
        digest=Digest(row.digest),
        base_model=row.base_model,
        base_fingerprint=Fingerprint(row.base_fingerprint),
        size_bytes=row.size_bytes,
        max_rank=row.max_rank,
        module_count=row.module_count,
        parameter_count=row.parameter_count,
        provenance=provenance_of(row.provenance),
        created=time_of(row.created_us),
        deleted=None if row.deleted_us is None else time_of(row.deleted_us),
    )
