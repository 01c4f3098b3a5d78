"""Who may use whose adapters, in SQL."""

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.adapter_store.models import AdapterRow, ShareRow
from services.adapter_store.repositories import changes
from services.adapter_store.sharing import EVERYBODY
from services.core.changes import Change, ChangeKind
from services.core.errors import ModelNotFound
from services.core.types import TenantId
from services.runtime.db import insert_unless_there, now_us, writing


class SqlShareRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def share(self, tenant: TenantId, adapter: str, shared_with: str) -> None:
        async with writing(self._sessions) as session:
            await _check(session, tenant, adapter)
            is_new = await insert_unless_there(
                session,
                ShareRow,
                tenant=tenant,
                adapter=adapter,
                shared_with=shared_with,
                created_us=now_us(),
            )
            if is_new:
                await _record(session, ChangeKind.SHARED, tenant, adapter, shared_with)

    async def unshare(self, tenant: TenantId, adapter: str, shared_with: str) -> None:
        share = delete(ShareRow).where(
            ShareRow.tenant == tenant,
            ShareRow.adapter == adapter,
            ShareRow.shared_with == shared_with,
        )
        async with writing(self._sessions) as session:
            await _check(session, tenant, adapter)
            if await session.scalar(share.returning(ShareRow.shared_with)) is not None:
                await _record(session, ChangeKind.UNSHARED, tenant, adapter, shared_with)

    async def shares(self, tenant: TenantId, adapter: str) -> list[str]:
        query = (
            select(ShareRow.shared_with)
            .where(ShareRow.tenant == tenant, ShareRow.adapter == adapter)
            .order_by(ShareRow.shared_with)
        )
        async with self._sessions() as session:
            return list(await session.scalars(query))

    async def allows(self, owner: TenantId, adapter: str, tenant: TenantId) -> bool:
        query = select(ShareRow.shared_with).where(
            ShareRow.tenant == owner,
            ShareRow.adapter == adapter,
            ShareRow.shared_with.in_((tenant, EVERYBODY)),
        )
        async with self._sessions() as session:
            return await session.scalar(query.limit(1)) is not None


async def _record(
    session: AsyncSession, kind: ChangeKind, tenant: TenantId, adapter: str, shared_with: str
) -> None:
    told = Change(kind=kind, tenant=tenant, adapter=adapter, shared_with=shared_with)
    await changes.record(session, told)


async def _check(session: AsyncSession, tenant: TenantId, adapter: str) -> None:
    row = await session.get(AdapterRow, (tenant, adapter))
    if row is None or row.deleted_us is not None:
        raise ModelNotFound.named(adapter)
