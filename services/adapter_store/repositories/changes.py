"""Changes in SQL: written with what they tell of, read in the order of the commits."""

from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.adapter_store.changes import ChangePage, Told
from services.adapter_store.models import ChangeRow, ShareRow
from services.adapter_store.sharing import EVERYBODY
from services.core.changes import Change, ChangeKind
from services.core.errors import OutOfRange
from services.core.types import TenantId
from services.runtime.db import (
    now_us,
    on_sqlite,
    table_of,
    time_of,
    when_committed,
    writing,
)

CHANNEL = "lorikeet_changes"
_ORDER = 0x6C6F72696B656574  # the advisory lock under which ids are given out
_RING = "lorikeet_ring"
_SHARES = (ChangeKind.SHARED.value, ChangeKind.UNSHARED.value)


async def record(session: AsyncSession, change: Change) -> None:
    """The last thing in a transaction: nothing that could wait for others may come after it.

    Whoever holds the lock is the only one to have an id and not to have committed; so no id comes
    to be seen after a greater one. SQLite has one writer anyway.
    """
    await session.flush()
    if not on_sqlite(session):
        lock, notify = func.pg_advisory_xact_lock(_ORDER), func.pg_notify(CHANNEL, "")
        await session.execute(select(lock, notify))
    facts = {name: getattr(change, name) for name in _FIELDS}
    facts |= {"kind": change.kind and change.kind.value, "created_us": now_us()}
    await session.execute(_ADD, facts)
    ring = session.info.get(_RING)
    if ring is not None:
        when_committed(session, ring)


def ring_after_commits(
    sessions: async_sessionmaker[AsyncSession], ring: Callable[[], None]
) -> None:
    """`ring` whenever one of the sessions has committed a change."""
    sessions.configure(info={_RING: ring})


class SqlChangeRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def newest(self) -> int:
        async with self._sessions() as session:
            return await _newest(session)

    async def after(self, cursor: int, viewer: TenantId | None, *, limit: int) -> ChangePage:
        bound = {"cursor": cursor, "limit": limit}
        async with self._sessions() as session:
            if viewer is None:  # who sees all of them can tell that none is missing
                told = [_told(row) for row in await session.scalars(_AFTER, bound)]
                if told and told[0].cursor == cursor + 1:
                    return ChangePage(told, told[-1].cursor, len(told) < limit)
            # In this order, as each statement may see more than the one before.
            newest = await _newest(session)
            query = _AFTER.where(ChangeRow.id <= newest)
            if viewer is not None:
                query = query.where(_seen_by(viewer))
            told = [_told(row) for row in await session.scalars(query, bound)]
            oldest = await session.scalar(select(func.min(ChangeRow.id))) or 0
        if not oldest - 1 <= cursor <= newest:
            raise OutOfRange("the changes after this cursor are not kept; start anew")
        is_last = len(told) < limit
        return ChangePage(told, newest if is_last else told[-1].cursor, is_last)

    async def purge(self, *, older_than: timedelta, limit: int) -> int:
        """So many of those as old as that. The newest stays: it says which ids were given out."""
        before = now_us() - older_than // timedelta(microseconds=1)
        newest = select(func.max(ChangeRow.id)).scalar_subquery()
        old = select(ChangeRow.id).where(ChangeRow.created_us <= before, ChangeRow.id < newest)
        async with writing(self._sessions) as session:
            ids = list(await session.scalars(old.order_by(ChangeRow.id).limit(limit)))
            await session.execute(delete(ChangeRow).where(ChangeRow.id.in_(ids)))
            return len(ids)


_ADD = insert(table_of(ChangeRow))
_AFTER = (
    select(ChangeRow)
    .where(ChangeRow.id > bindparam("cursor"))
    .order_by(ChangeRow.id)
    .limit(bindparam("limit"))
)


async def _newest(session: AsyncSession) -> int:
    return await session.scalar(select(func.max(ChangeRow.id))) or 0


def _seen_by(viewer: TenantId) -> ColumnElement[bool]:
    """What happens to its own, to base models, and to what is shared with it since that is so."""
    with_it = (viewer, EVERYBODY)
    share = select(ShareRow.tenant).where(
        ShareRow.tenant == ChangeRow.tenant,
        ShareRow.adapter == ChangeRow.adapter,
        ShareRow.shared_with.in_(with_it),
        ShareRow.created_us <= ChangeRow.created_us,
    )
    is_share = ChangeRow.kind.in_(_SHARES)
    return (
        (ChangeRow.tenant == viewer)
        | (ChangeRow.kind == ChangeKind.BASE_MODEL_REGISTERED.value)
        | (is_share & ChangeRow.shared_with.in_(with_it))
        | (~is_share & share.exists())
    )


_KINDS = {kind.value: kind for kind in ChangeKind}  # another release may have written others
_FIELDS = [field.name for field in fields(Change) if field.name != "kind"]


def _told(row: ChangeRow) -> Told:
    facts = {name: getattr(row, name) for name in _FIELDS}
    return Told(row.id, Change(kind=_KINDS.get(row.kind), **facts), time_of(row.created_us))
