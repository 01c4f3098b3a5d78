"""Tenants, organisations and keys in SQL."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.core.errors import Aborted, AlreadyExists, NotFound
from services.core.types import KeyId, Share, TenantId, Tier
from services.gateway.keys import Key, Replaced
from services.gateway.models import KeyRow, OrganisationRow, TenantRow
from services.gateway.tenants import Organisation, Tenant
from services.runtime.auth import KEY_SCOPES, Scope
from services.runtime.db import time_of, us_of, writing


class SqlTenantRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def add_tenant(self, tenant: Tenant) -> None:
        row = TenantRow(
            name=tenant.name,
            created_us=us_of(tenant.created),
            organisation=tenant.organisation or None,
            weight=tenant.weight,
            highest_tier=tenant.highest_tier.value,
        )
        try:
            async with writing(self._sessions) as session:
                await _require(session, tenant.organisation)
                session.add(row)
        except IntegrityError as error:
            raise AlreadyExists(f"tenant {tenant.name!r} exists") from error

    async def change_tenant(
        self,
        name: TenantId,
        organisation: str | None,
        weight: float | None,
        highest_tier: Tier | None,
    ) -> Tenant:
        async with writing(self._sessions) as session:
            row = await session.get(TenantRow, name, with_for_update=True)
            if row is None:
                raise NotFound(f"there is no tenant {name!r}")
            if organisation is not None:
                await _require(session, organisation)
                row.organisation = organisation or None
            if weight is not None:
                row.weight = weight
            if highest_tier is not None:
                row.highest_tier = highest_tier.value
            return _tenant(row)

    async def tenants(self, *, after: str, limit: int) -> list[Tenant]:
        query = (
            select(TenantRow).where(TenantRow.name > after).order_by(TenantRow.name).limit(limit)
        )
        async with self._sessions() as session:
            return [_tenant(row) for row in await session.scalars(query)]

    async def add_organisation(self, organisation: Organisation) -> None:
        row = OrganisationRow(name=organisation.name, weight=organisation.weight)
        try:
            async with writing(self._sessions) as session:
                session.add(row)
        except IntegrityError as error:
            raise AlreadyExists(f"organisation {organisation.name!r} exists") from error

    async def change_organisation(self, organisation: Organisation) -> None:
        named = update(OrganisationRow).where(OrganisationRow.name == organisation.name)
        async with writing(self._sessions) as session:
            done: Any = await session.execute(named.values(weight=organisation.weight))
        if not done.rowcount:
            raise NotFound(f"there is no organisation {organisation.name!r}")

    async def organisations(self, *, after: str, limit: int) -> list[Organisation]:
        query = select(OrganisationRow).where(OrganisationRow.name > after)
        async with self._sessions() as session:
            found = await session.scalars(query.order_by(OrganisationRow.name).limit(limit))
            return [Organisation(row.name, row.weight) for row in found]

    async def bearer(self, key: KeyId) -> tuple[Key, Share] | None:
        async with self._sessions() as session:
            row = (await session.execute(_BEARER, {"id": key})).one_or_none()
            if row is None:
                return None
            return _key(row), _share(row)

    async def add_key(self, key: Key) -> None:
        row = KeyRow(
            id=key.id,
            tenant=key.tenant,
            label=key.label,
            secret_hmac=key.secret_hmac,
            created_us=us_of(key.created),
            expire_us=None if key.expires is None else us_of(key.expires),
            scopes=None
            if key.scopes is None
            else " ".join(sorted(scope.value for scope in key.scopes)),
        )
        try:
            async with writing(self._sessions) as session:
                session.add(row)
        except IntegrityError as error:
            raise NotFound(f"there is no tenant {key.tenant!r}") from error

    async def key(self, key: KeyId) -> Key | None:
        async with self._sessions() as session:
            found = (await session.execute(_BY_ID, {"id": key})).one_or_none()
            return None if found is None else _key(found)

    async def keys(self, tenant: TenantId, *, after: str, limit: int) -> list[Key]:
        query = (
            _KEYS.where(KeyRow.tenant == tenant, KeyRow.id > after).order_by(KeyRow.id).limit(limit)
        )
        async with self._sessions() as session:
            return [_key(row) for row in await session.execute(query)]

    async def revoke(self, key: KeyId, at: datetime) -> None:
        unrevoked = update(KeyRow).where(KeyRow.id == key, KeyRow.revoked_us.is_(None))
        async with writing(self._sessions) as session:
            await session.execute(unrevoked.values(revoked_us=us_of(at)))

    async def rotate(self, before: Key, after: Key) -> None:
        same = (KeyRow.id == before.id, KeyRow.secret_hmac == before.secret_hmac)
        rotated = update(KeyRow).where(*same, KeyRow.revoked_us.is_(None))
        previous = after.previous
        async with writing(self._sessions) as session:
            done: Any = await session.execute(
                rotated.values(
                    secret_hmac=after.secret_hmac,
                    previous_hmac=None if previous is None else previous.secret_hmac,
                    previous_expire_us=None if previous is None else us_of(previous.until),
                )
            )
        if not done.rowcount:
            raise Aborted(f"somebody else changed key {before.id!r} at the same time")


# Columns, not objects of the mapper's, and built once: every request asks for its key.
_KEYS = select(*KeyRow.__table__.columns)
_BY_ID = _KEYS.where(KeyRow.id == bindparam("id"))
_BEARER = (
    _BY_ID.add_columns(
        TenantRow.organisation,
        TenantRow.weight,
        TenantRow.highest_tier,
        OrganisationRow.weight.label("organisation_weight"),
    )
    .join(TenantRow, TenantRow.name == KeyRow.tenant)
    .outerjoin(OrganisationRow, OrganisationRow.name == TenantRow.organisation)
)


async def _require(session: AsyncSession, organisation: str) -> None:
    """Raises NotFound; "" is none. None is ever removed."""
    if organisation and await session.get(OrganisationRow, organisation) is None:
        raise NotFound(f"there is no organisation {organisation!r}")


def _tenant(row: TenantRow) -> Tenant:
    return Tenant(
        name=TenantId(row.name),
        created=time_of(row.created_us),
        organisation=row.organisation or "",
        weight=row.weight,
        highest_tier=_tier(row.highest_tier),
    )


def _share(row: Row[Any]) -> Share:
    return Share(
        organisation=row.organisation or "",
        weight=row.weight,
        organisation_weight=row.organisation_weight or 1.0,
        highest_tier=_tier(row.highest_tier),
    )


def _tier(word: str) -> Tier:
    """One that a later release added means the default tier here."""
    return next((tier for tier in Tier if tier.value == word), Tier.DEFAULT)


def _key(row: Row[Any]) -> Key:
    return Key(
        id=KeyId(row.id),
        tenant=TenantId(row.tenant),
        label=row.label,
        secret_hmac=row.secret_hmac,
        created=time_of(row.created_us),
        revoked=_moment(row.revoked_us),
        expires=_moment(row.expire_us),
        scopes=None if row.scopes is None else _scopes(row.scopes),
        previous=None
        if row.previous_hmac is None
        else Replaced(row.previous_hmac, time_of(row.previous_expire_us)),
    )


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else time_of(microseconds)


def _scopes(words: str) -> frozenset[Scope]:
    """Those that a later release added mean nothing here."""
    return frozenset(scope for scope in KEY_SCOPES if scope.value in words.split())
