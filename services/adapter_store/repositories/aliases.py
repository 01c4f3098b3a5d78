"""Aliases and their history in SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import aliased

from services.adapter_store.aliases import Decide
from services.adapter_store.models import AdapterRow, AdapterVersionRow, AliasMoveRow, AliasRow
from services.adapter_store.records import Ask, Meaning, Move
from services.adapter_store.repositories import changes
from services.adapter_store.repositories.alias_rows import change_of, move_of, row_of, values_of
from services.adapter_store.repositories.versions import NEWEST, version_of
from services.core.changes import NOTHING
from services.core.changes import Change as StoreChange
from services.core.errors import Aborted, FailedPrecondition, InvalidRequest, ModelNotFound
from services.core.types import Digest, TenantId
from services.runtime.db import table_of, us_of, writing


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where an alias stands; empty for one that was never set."""

    row: AliasRow | None = None
    now: Move | None = None
    undone: Move | None = None  # the generation that a rollback goes back to
    digest: Digest = NOTHING  # of the stable version


class SqlAliasRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def move(
        self, tenant: TenantId, adapter: str, alias: str, decide: Decide, ask: Ask
    ) -> Move:
        async with writing(self._sessions) as session:
            await _lock(session, tenant, adapter)
            if ask.request_id is not None:
                done = await _asked_before(session, tenant, ask.request_id)
                if done is not None:
                    if (done.adapter, done.alias) != (adapter, alias):
                        raise InvalidRequest.of("request_id", "was used for another alias")
                    return move_of(done)
            standing = await _standing(session, tenant, adapter, alias)
            now = standing.now
            generation = 0 if now is None else now.generation
            if ask.expected_generation not in (None, generation):
                raise Aborted(
                    f"{adapter}@{alias} is at generation {generation}, "
                    f"not {ask.expected_generation}: somebody else moved it"
                )
            change = decide(now, standing.undone)
            if change is None:
                assert now is not None
                return now
            made = row_of(tenant, adapter, alias, generation=generation + 1, change=change, ask=ask)
            told = await _point(session, standing, made)
            await session.execute(_ADD_MOVE, values_of(made))
            await changes.record(session, told)
            return move_of(made)

    async def alias(
        self, tenant: TenantId, adapter: str, alias: str, *, as_of: datetime | None = None
    ) -> Move | None:
        """Its newest generation, now or at a moment; None if it had never been set."""
        query = _moves(tenant, adapter, alias).order_by(AliasMoveRow.generation.desc()).limit(1)
        if as_of is not None:
            query = query.where(AliasMoveRow.created_us <= us_of(as_of))
        async with self._sessions() as session:
            row = await session.scalar(query)
            return None if row is None else move_of(row)

    async def meaning(self, tenant: TenantId, adapter: str, alias: str) -> Meaning:
        """What it points to now; the newest version for one that was never set."""
        async with self._sessions() as session:
            found = list(await session.execute(_POINTING, _named(tenant, adapter, alias)))
            if not found:
                row = await session.scalar(NEWEST, {"tenant": tenant, "adapter": adapter})
                return Meaning(None, [] if row is None else [version_of(row)])
            return Meaning(move_of(found[0][0]), [version_of(row) for _, row in found if row])

    async def aliases(self, tenant: TenantId, adapter: str) -> list[Move]:
        """The newest generation of each that points somewhere, by name."""
        query = (
            select(AliasMoveRow)
            .join(AliasRow, _SAME_GENERATION)
            .where(AliasRow.tenant == tenant, AliasRow.adapter == adapter)
            .where(AliasRow.version_id.is_not(None))
            .order_by(AliasRow.name)
        )
        async with self._sessions() as session:
            return [move_of(row) for row in await session.scalars(query)]

    async def history(
        self, tenant: TenantId, adapter: str, alias: str, *, before: int | None, limit: int
    ) -> list[Move]:
        """Generations below `before`, newest first."""
        query = _moves(tenant, adapter, alias).order_by(AliasMoveRow.generation.desc())
        if before is not None:
            query = query.where(AliasMoveRow.generation < before)
        async with self._sessions() as session:
            return [move_of(row) for row in await session.scalars(query.limit(limit))]


_SAME_GENERATION = (
    (AliasMoveRow.tenant == AliasRow.tenant)
    & (AliasMoveRow.adapter == AliasRow.adapter)
    & (AliasMoveRow.alias == AliasRow.name)
    & (AliasMoveRow.generation == AliasRow.generation)
)


_NAMED = (
    (AliasRow.tenant == bindparam("tenant"))
    & (AliasRow.adapter == bindparam("adapter"))
    & (AliasRow.name == bindparam("alias"))
)
_POINTING = (  # the newest generation with every version it points to, or with none
    select(AliasMoveRow, AdapterVersionRow)
    .join(AliasRow, _SAME_GENERATION)
    .join(
        AdapterRow,
        (AdapterRow.tenant == AliasRow.tenant) & (AdapterRow.name == AliasRow.adapter),
    )
    .outerjoin(
        AdapterVersionRow,
        AdapterVersionRow.id.in_((AliasRow.version_id, AliasRow.canary_version_id))
        & AdapterVersionRow.deleted_us.is_(None)
        & AdapterRow.deleted_us.is_(None),
    )
    .where(_NAMED)
)
_UNDONE = aliased(AliasMoveRow)
_STANDING = (
    select(AliasRow, AliasMoveRow, _UNDONE, AdapterVersionRow.digest)
    .join(AliasMoveRow, _SAME_GENERATION)
    .outerjoin(
        _UNDONE,
        (_UNDONE.tenant == AliasMoveRow.tenant)
        & (_UNDONE.adapter == AliasMoveRow.adapter)
        & (_UNDONE.alias == AliasMoveRow.alias)
        & (_UNDONE.generation == AliasMoveRow.undo_generation),
    )
    .outerjoin(AdapterVersionRow, AdapterVersionRow.id == AliasRow.version_id)
    .where(_NAMED)
)
_LOCKED = (
    select(AdapterRow.name)
    .where(
        AdapterRow.tenant == bindparam("tenant"),
        AdapterRow.name == bindparam("adapter"),
        AdapterRow.deleted_us.is_(None),
    )
    .with_for_update()
)
_NUMBERED = select(AdapterVersionRow).where(
    AdapterVersionRow.tenant == bindparam("tenant"),
    AdapterVersionRow.adapter == bindparam("adapter"),
    AdapterVersionRow.number.in_(bindparam("numbers", expanding=True)),
    AdapterVersionRow.deleted_us.is_(None),
)


# By table, not by class: the unit of work would cost as much again as all statements of a move.
_ALIASES = table_of(AliasRow)
_ADD_ALIAS, _ADD_MOVE = insert(_ALIASES), insert(table_of(AliasMoveRow))
_POINT = update(_ALIASES).where(
    _ALIASES.c.tenant == bindparam("its_tenant"),
    _ALIASES.c.adapter == bindparam("its_adapter"),
    _ALIASES.c.name == bindparam("its_name"),
)


def _moves(tenant: TenantId, adapter: str, alias: str) -> Select[AliasMoveRow]:
    return select(AliasMoveRow).where(
        AliasMoveRow.tenant == tenant, AliasMoveRow.adapter == adapter, AliasMoveRow.alias == alias
    )


def _named(tenant: TenantId, adapter: str, alias: str) -> dict[str, str]:
    return {"tenant": tenant, "adapter": adapter, "alias": alias}


async def _lock(session: AsyncSession, tenant: TenantId, adapter: str) -> None:
    """Until the transaction ends nobody else changes what the adapter's names mean."""
    found = await session.scalar(_LOCKED, {"tenant": tenant, "adapter": adapter})
    if found is None:
        raise ModelNotFound.named(adapter)


async def _asked_before(
    session: AsyncSession, tenant: TenantId, request_id: str
) -> AliasMoveRow | None:
    query = select(AliasMoveRow).where(
        AliasMoveRow.tenant == tenant, AliasMoveRow.request_id == request_id
    )
    found: AliasMoveRow | None = await session.scalar(query)
    return found


async def _standing(session: AsyncSession, tenant: TenantId, adapter: str, alias: str) -> _Standing:
    named = _named(tenant, adapter, alias)
    found = (await session.execute(_STANDING, named)).one_or_none()
    if found is None:
        return _Standing()
    row, newest, undone, digest = found
    return _Standing(
        row, move_of(newest), None if undone is None else move_of(undone), Digest(digest or NOTHING)
    )


async def _point(session: AsyncSession, standing: _Standing, made: AliasMoveRow) -> StoreChange:
    """The alias to what `made` says."""
    wanted = [number for number in (made.number, made.canary_number) if number is not None]
    versions = await _versions(session, made.tenant, made.adapter, wanted) if wanted else {}
    stable, canary = versions.get(made.number), versions.get(made.canary_number)
    points = {
        "generation": made.generation,
        "version_id": None if stable is None else stable.id,
        "canary_version_id": None if canary is None else canary.id,
    }
    if standing.row is None:
        alias = {"tenant": made.tenant, "adapter": made.adapter, "name": made.alias}
        await session.execute(_ADD_ALIAS, alias | points)
    else:
        named = {"its_tenant": made.tenant, "its_adapter": made.adapter, "its_name": made.alias}
        await session.execute(_POINT, named | points)
    return change_of(made, standing.digest, stable, canary)


async def _versions(
    session: AsyncSession, tenant: str, adapter: str, numbers: Sequence[int]
) -> dict[int | None, AdapterVersionRow]:
    """Raises FailedPrecondition for one that does not exist."""
    asked = {"tenant": tenant, "adapter": adapter, "numbers": numbers}
    found: dict[int | None, AdapterVersionRow] = {
        row.number: row for row in await session.scalars(_NUMBERED, asked)
    }
    for number in numbers:
        if number not in found:
            raise FailedPrecondition(f"{adapter} has no version {number}")
    return found
