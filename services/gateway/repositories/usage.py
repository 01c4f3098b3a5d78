"""What the ledger says, in SQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, func, or_, select, tuple_

from services.gateway.models import LedgerRow
from services.gateway.records import NAMES, Record
from services.gateway.usage import Dimension, Filter, Place, Sum
from services.runtime.db import Sessions

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US

_LABELS = {
    Dimension.HOUR: (LedgerRow.accepted_us - LedgerRow.accepted_us % _HOUR_US).label("start_us"),
    Dimension.DAY: (LedgerRow.accepted_us - LedgerRow.accepted_us % _DAY_US).label("start_us"),
    Dimension.TENANT: LedgerRow.tenant.label("tenant"),
    Dimension.MODEL: LedgerRow.model.label("model"),
    Dimension.ADAPTER: LedgerRow.adapter.label("adapter"),
    Dimension.KEY: LedgerRow.key.label("key"),
    Dimension.TIER: LedgerRow.tier.label("tier"),
}  # in the order that sums come in
_SUMMED = ("prompt_tokens", "cached_tokens", "completion_tokens", "charge")
_RECORDS = select(*(getattr(LedgerRow, name) for name in NAMES))


class SqlUsage:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def sums(self, asked: Filter, by: Sequence[Dimension], *, limit: int) -> list[Sum]:
        groups: list[Any] = [label for dimension, label in _LABELS.items() if dimension in by]
        totals: list[Any] = [
            func.coalesce(func.sum(getattr(LedgerRow, name)), 0).label(name) for name in _SUMMED
        ]
        query = (
            select(*groups, func.count().label("requests"), *totals)
            .where(*_conditions(asked))
            .group_by(*groups)
            .order_by(*groups)
            .limit(limit)
        )
        async with self._sessions() as session:
            found = await session.execute(query)
            return [_sum(row._asdict()) for row in found if row.requests]

    async def records(
        self, asked: Filter, *, after: Place | None, newest_first: bool, limit: int
    ) -> list[Record]:
        place = tuple_(LedgerRow.accepted_us, LedgerRow.id)
        query = _RECORDS.where(*_conditions(asked)).limit(limit)
        if newest_first:
            query = query.order_by(LedgerRow.accepted_us.desc(), LedgerRow.id.desc())
        else:
            query = query.order_by(LedgerRow.accepted_us, LedgerRow.id)
        if after is not None:
            there = (after.accepted_us, after.id)
            query = query.where(place < there if newest_first else place > there)
        async with self._sessions() as session:
            return [_record(row) for row in await session.execute(query)]

    async def called(self, tenant: str, request_id: str, *, limit: int) -> list[Record]:
        query = (
            _RECORDS.where(or_(LedgerRow.id == request_id, LedgerRow.asked_id == request_id))
            .where(*_conditions(Filter(tenant=tenant)))
            .order_by(LedgerRow.accepted_us.desc(), LedgerRow.id)
            .limit(limit)
        )
        async with self._sessions() as session:
            return [_record(row) for row in await session.execute(query)]


def _conditions(asked: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        getattr(LedgerRow, name) == wanted
        for name in ("tenant", "key", "adapter", "model")
        if (wanted := getattr(asked, name))
    ]
    if asked.since_us is not None:
        conditions.append(LedgerRow.accepted_us >= asked.since_us)
    if asked.until_us is not None:
        conditions.append(LedgerRow.accepted_us < asked.until_us)
    if asked.ended_only:
        conditions.append(LedgerRow.outcome.is_not(None))
    return conditions


def _sum(row: dict[str, Any]) -> Sum:
    return Sum(**row)


def _record(row: Row[Any]) -> Record:
    return Record(**row._mapping)
