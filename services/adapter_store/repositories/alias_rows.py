"""Moves of aliases as rows, as records, and as changes that watchers are told."""

from services.adapter_store.aliases import Change
from services.adapter_store.models import AdapterVersionRow, AliasMoveRow
from services.adapter_store.records import Ask, Canary, Move, MoveKind, Split, Target
from services.core.changes import NOTHING, ChangeKind
from services.core.changes import Change as StoreChange
from services.core.types import AdapterName, Digest, TenantId
from services.runtime.db import now_us, table_of, time_of

_COLUMNS = [column.name for column in table_of(AliasMoveRow).columns if column.name != "id"]


def row_of(
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


def values_of(row: AliasMoveRow) -> dict[str, object]:
    """All but its id, which the database gives."""
    return {name: getattr(row, name) for name in _COLUMNS}


def move_of(row: AliasMoveRow) -> Move:
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


def change_of(
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
