"""Tenants and keys in SQL."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.core.errors import AlreadyExists, NotFound
from services.core.types import KeyId, TenantId
from services.gateway.models import KeyRow, TenantRow
from services.gateway.tenants import Key, Tenant
from services.runtime.db import time_of, us_of, writing


class SqlTenantRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def add_tenant(self, tenant: Tenant) -> None:
        try:
            async with writing(self._sessions) as session:
                session.add(TenantRow(name=tenant.name, created_us=us_of(tenant.created)))
        except IntegrityError as error:
            raise AlreadyExists(f"tenant {tenant.name!r} exists") from error

    async def tenants(self, *, after: str, limit: int) -> list[Tenant]:
        query = (
            select(TenantRow).where(TenantRow.name > after).order_by(TenantRow.name).limit(limit)
        )
        async with self._sessions() as session:
            return [
                Tenant(TenantId(row.name), time_of(row.created_us))
                for row in await session.scalars(query)
            ]

    async def add_key(self, key: Key) -> None:
        row = KeyRow(
            id=key.id,
            tenant=key.tenant,
            label=key.label,
            secret_hmac=key.secret_hmac,
            created_us=us_of(key.created),
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


# Columns, not objects of the mapper's, and built once: every request asks for its key.
_KEYS = select(*KeyRow.__table__.columns)
_BY_ID = _KEYS.where(KeyRow.id == bindparam("id"))


def _key(row: Row[Any]) -> Key:
    return Key(
        id=KeyId(row.id),
        tenant=TenantId(row.tenant),
        label=row.label,
        secret_hmac=row.secret_hmac,
        created=time_of(row.created_us),
        revoked=None if row.revoked_us is None else time_of(row.revoked_us),
    )
