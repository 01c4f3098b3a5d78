"""Aliases and their history in SQL."""

from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.adapter_store.aliases import Change, Decide
from services.adapter_store.models import AdapterRow, AdapterVersionRow, AliasMoveRow, AliasRow
from services.adapter_store.records import Ask, Canary, Meaning, Move, MoveKind, Split, Target
from services.adapter_store.repositories import changes
from services.adapter_store.repositories.versions import live, version_of
from services.core.changes import NOTHING, ChangeKind
from services.core.changes import Change as StoreChange
from services.core.errors import Aborted, FailedPrecondition, InvalidRequest, ModelNotFound
from services.core.types import AdapterName, Digest, TenantId
from services.runtime.db import now_us, time_of, us_of, writing


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
                    return _move(done)
            row = await session.get(AliasRow, (tenant, adapter, alias))
            now = await _generation(
                session, tenant, adapter, alias, row.generation if row else None
            )
            generation = 0 if now is None else now.generation
            if ask.expected_generation not in (None, generation):
                raise Aborted(
                    f"{adapter}@{alias} is at generation {generation}, "
                    f"not {ask.expected_generation}: somebody else moved it"
                )
            undone = await _generation(session, tenant, adapter, alias, now.undo if now else None)
            change = decide(now, undone)
            if change is None:
                assert now is not None
                return now
            made = _row(tenant, adapter, alias, generation=generation + 1, change=change, ask=ask)
            told = await _point(session, row, made)
            session.add(made)
            await changes.record(session, told)
            return _move(made)

    async def alias(
        self, tenant: TenantId, adapter: str, alias: str, *, as_of: datetime | None = None
    ) -> Move | None:
        """Its newest generation, now or at a moment; None if it had never been set."""
        query = _moves(tenant, adapter, alias).order_by(AliasMoveRow.generation.desc()).limit(1)
        if as_of is not None:
            query = query.where(AliasMoveRow.created_us <= us_of(as_of))
        async with self._sessions() as session:
            row = await session.scalar(query)
            return None if row is None else _move(row)

    async def meaning(self, tenant: TenantId, adapter: str, alias: str) -> Meaning:
        """What it points to now; the newest version for one that was never set."""
        async with self._sessions() as session:
            found = list(await session.execute(_pointing(tenant, adapter, alias)))
            if not found:
                newest = live(tenant, adapter).order_by(AdapterVersionRow.number.desc())
                row = await session.scalar(newest.limit(1))
                return Meaning(None, [] if row is None else [version_of(row)])
            return Meaning(_move(found[0][0]), [version_of(row) for _, row in found if row])

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
            return [_move(row) for row in await session.scalars(query)]

    async def history(
        self, tenant: TenantId, adapter: str, alias: str, *, before: int | None, limit: int
    ) -> list[Move]:
        """Generations below `before`, newest first."""
        query = _moves(tenant, adapter, alias).order_by(AliasMoveRow.generation.desc())
        if before is not None:
            query = query.where(AliasMoveRow.generation < before)
        async with self._sessions() as session:
            return [_move(row) for row in await session.scalars(query.limit(limit))]


_SAME_GENERATION = (
    (AliasMoveRow.tenant == AliasRow.tenant)
    & (AliasMoveRow.adapter == AliasRow.adapter)
    & (AliasMoveRow.alias == AliasRow.name)
    & (AliasMoveRow.generation == AliasRow.generation)
)


def _pointing(
    tenant: TenantId, adapter: str, alias: str
) -> Select[AliasMoveRow, AdapterVersionRow | None]:
    """The newest generation of an alias with every version it points to, or with none."""
    to = AdapterVersionRow.id.in_((AliasRow.version_id, AliasRow.canary_version_id))
    return (
        select(AliasMoveRow, AdapterVersionRow)
        .join(AliasRow, _SAME_GENERATION)
        .join(
            AdapterRow,
            (AdapterRow.tenant == AliasRow.tenant) & (AdapterRow.name == AliasRow.adapter),
        )
        .outerjoin(
            AdapterVersionRow,
            to & AdapterVersionRow.deleted_us.is_(None) & AdapterRow.deleted_us.is_(None),
        )
        .where(AliasRow.tenant == tenant, AliasRow.adapter == adapter, AliasRow.name == alias)
    )


def _moves(tenant: TenantId, adapter: str, alias: str) -> Select[AliasMoveRow]:
    return select(AliasMoveRow).where(
        AliasMoveRow.tenant == tenant, AliasMoveRow.adapter == adapter, AliasMoveRow.alias == alias
    )


async def _lock(session: AsyncSession, tenant: TenantId, adapter: str) -> None:
    """Until the transaction ends nobody else changes what the adapter's names mean."""
    row = await session.get(AdapterRow, (tenant, adapter), with_for_update=True)
    if row is None or row.deleted_us is not None:
        raise ModelNotFound.named(adapter)


async def _asked_before(
    session: AsyncSession, tenant: TenantId, request_id: str
) -> AliasMoveRow | None:
    query = select(AliasMoveRow).where(
        AliasMoveRow.tenant == tenant, AliasMoveRow.request_id == request_id
    )
    found: AliasMoveRow | None = await session.scalar(query)
    return found


async def _generation(
    session: AsyncSession, tenant: TenantId, adapter: str, alias: str, generation: int | None
) -> Move | None:
    if generation is None:
        return None
    query = _moves(tenant, adapter, alias).where(AliasMoveRow.generation == generation)
    return _move((await session.scalars(query)).one())


async def _point(session: AsyncSession, row: AliasRow | None, made: AliasMoveRow) -> StoreChange:
    """The alias, which `row` is unless it is new, to what `made` says."""
    stable = await _version(session, made.tenant, made.adapter, made.number)
    canary = await _version(session, made.tenant, made.adapter, made.canary_number)
    before = await _digest(session, row.version_id if row else None)
    moved = {
        "generation": made.generation,
        "version_id": stable and stable.id,
        "canary_version_id": canary and canary.id,
    }
    if row is None:
        row = AliasRow(tenant=made.tenant, adapter=made.adapter, name=made.alias)
        session.add(row)
    for column, value in moved.items():
        setattr(row, column, value)
    return _change(made, before, stable, canary)


async def _version(
    session: AsyncSession, tenant: str, adapter: str, number: int | None
) -> AdapterVersionRow | None:
    if number is None:
        return None
    found: AdapterVersionRow | None = await session.scalar(
        select(AdapterVersionRow).where(
            AdapterVersionRow.tenant == tenant,
            AdapterVersionRow.adapter == adapter,
            AdapterVersionRow.number == number,
            AdapterVersionRow.deleted_us.is_(None),
        )
    )
    if found is None:
        raise FailedPrecondition(f"{adapter} has no version {number}")
    return found


def _row(
    tenant: TenantId, adapter: str, alias: str, *, generation: int, change: Change, ask: Ask
) -> AliasMoveRow:
    canary = change.target and change.target.canary
    return AliasMoveRow(
        tenant=tenant,
        adapter=adapter,
        alias=alias,
        generation=generation,
        kind=change.kind.value,
        number=change.target and change.target.number,
        canary_number=canary and canary.number,
        canary_percent=canary and canary.percent,
        canary_split=canary and canary.split.value,
        undo_generation=change.undo,
        moved_by=ask.by,
        reason=ask.reason,
        request_id=ask.request_id,
        created_us=now_us(),
    )


async def _digest(session: AsyncSession, version_id: int | None) -> Digest:
    if version_id is None:
        return NOTHING
    return Digest((await session.get_one(AdapterVersionRow, version_id)).digest)


def _change(
    made: AliasMoveRow,
    before: Digest,
    stable: AdapterVersionRow | None,
    canary: AdapterVersionRow | None,
) -> StoreChange:
    """`before`: of the stable version of the generation before."""
    return StoreChange(
        kind=ChangeKind.ALIAS_MOVED,
        tenant=TenantId(made.tenant),
        adapter=made.adapter,
        alias=made.alias,
        generation=made.generation,
        number=stable.number if stable else 0,
        digest=Digest(stable.digest) if stable else NOTHING,
        previous_digest=before,
        canary_number=canary.number if canary else 0,
        canary_digest=Digest(canary.digest) if canary else NOTHING,
    )


def _move(row: AliasMoveRow) -> Move:
    target = None
    if row.number is not None:
        canary = None
        if row.canary_number is not None:
            assert row.canary_percent is not None
            canary = Canary(row.canary_number, row.canary_percent, Split(row.canary_split))
        target = Target(row.number, canary)
    return Move(
        tenant=TenantId(row.tenant),
        adapter=AdapterName(row.adapter),
        alias=row.alias,
        generation=row.generation,
        kind=MoveKind(row.kind),
        target=target,
        undo=row.undo_generation,
        by=row.moved_by,
        reason=row.reason,
        created=time_of(row.created_us),
    )
