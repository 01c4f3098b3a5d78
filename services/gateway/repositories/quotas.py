"""Quotas in SQL. Whoever reserves or settles locks the quotas' rows first, by tenant and key."""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.core.errors import NotFound
from services.core.types import TenantId
from services.gateway.models import QuotaRow, ReservationRow
from services.gateway.reservations import Reservation, Settlement
from services.policies.quotas import (
    Account,
    Amount,
    Decision,
    Limits,
    Second,
    Use,
    longest,
    refusal,
    standing,
)
from services.runtime.db import insert_unless_there, on_sqlite, writing

_MILLION = 1_000_000

Subject = tuple[str, str]  # tenant, and key or "" for all of the tenant


class SqlQuotaRepository:
    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock`: seconds since 1970. Without one it is PostgreSQL's own, so that gateways need
        not agree on the time; those that share an SQLite file share a machine's."""
        self._sessions = sessions
        self._clock = clock

    async def limited(self, tenants: Collection[TenantId]) -> set[TenantId]:
        asked = (
            select(QuotaRow.tenant).where(QuotaRow.tenant.in_(list(tenants)), _ANY_LIMIT).distinct()
        )
        async with self._sessions() as session:
            return {TenantId(tenant) for tenant in await session.scalars(asked)}

    async def write(
        self,
        holder: str,
        reservations: Sequence[Reservation],
        settlements: Sequence[Settlement],
    ) -> list[Decision | None]:
        spent = {settlement.reservation.id: settlement.spent for settlement in settlements}
        everything = [*reservations, *(settlement.reservation for settlement in settlements)]
        async with writing(self._sessions) as session:
            quotas = await _lock(session, [subject for r in everything for subject in _subjects(r)])
            now_us = await self._now_us(session)
            if spent:
                await _settle(
                    session,
                    quotas,
                    _RESERVATIONS.c.id.in_(list(spent)),
                    now_us,
                    lambda row: spent[row.id],
                )
            decisions = [quotas.decide(holder, asked, now_us) for asked in reservations]
            if quotas.held:
                await session.execute(insert(_RESERVATIONS), quotas.held)
            await quotas.write(session)
        return decisions

    async def settle_whole(self, session: AsyncSession, holder: str) -> int:
        """How many reservations it had. What they delivered is not known here: their tokens stay
        spent, their places are free."""
        columns = _RESERVATIONS.c
        held = select(columns.id, columns.tenant, columns.key).where(columns.holder == holder)
        found = (await session.execute(held)).all()
        if not found:
            return 0
        quotas = await _lock(session, [(row.tenant, row.key) for row in found])
        these = columns.id.in_({row.id for row in found})  # what it reserves meanwhile is for later
        ended = await _settle(session, quotas, these, await self._now_us(session), _whole)
        await quotas.write(session)
        return ended

    async def quota(self, tenant: TenantId, key: str) -> Account:
        """With the use as of now."""
        async with self._sessions() as session:
            asked = _QUOTAS.where(QuotaRow.tenant == tenant, QuotaRow.key == key)
            row = (await session.execute(asked)).one_or_none()
            now = await self._now_us(session) // _MILLION
        account = Account(Limits(), Use()) if row is None else _account(row)
        return Account(account.limits, account.use.seen(now))

    async def set_limits(
        self, tenant: TenantId, key: str, changes: Mapping[str, int | None]
    ) -> None:
        """Of these names, and of no others. Raises NotFound for an unknown tenant."""
        found = (QuotaRow.tenant == tenant, QuotaRow.key == key)
        try:
            async with writing(self._sessions) as session:
                unused = _use_columns(Use())
                await insert_unless_there(session, QuotaRow, tenant=tenant, key=key, **unused)
                if changes:
                    await session.execute(update(QuotaRow).where(*found).values(dict(changes)))
        except IntegrityError as error:
            raise NotFound(f"there is no tenant {tenant!r}") from error

    async def _now_us(self, session: AsyncSession) -> int:
        """Asked after the locks: whoever had them before did so earlier."""
        if self._clock is not None:
            return int(self._clock() * _MILLION)
        if on_sqlite(session):
            return time.time_ns() // 1000
        seconds = func.extract("epoch", func.clock_timestamp())
        return int((await session.execute(select(seconds))).scalar_one() * _MILLION)


class _Locked:
    """The quotas that a transaction may change, what it will have changed of them, and the rows of
    the reservations that it makes."""

    def __init__(self, accounts: dict[Subject, Account]) -> None:
        self._accounts = accounts
        self._changed: set[Subject] = set()
        self.held: list[dict[str, Any]] = []

    def decide(self, holder: str, asked: Reservation, now_us: int) -> Decision | None:
        """None: there are no limits."""
        now = now_us // _MILLION
        concerned = {
            subject: self._accounts[subject]
            for subject in _subjects(asked)
            if subject in self._accounts and self._accounts[subject].limits.any
        }
        if not concerned:
            return None
        refusals = [
            replace(found, key=key)
            for (_, key), account in concerned.items()
            if (found := refusal(account, asked.ask, now)) is not None
        ]
        refused = longest(refusals)
        if refused is None:
            for (tenant, key), account in concerned.items():
                self.put((tenant, key), account.use.reserved(asked.ask, now))
                self.held.append(
                    {
                        "id": asked.id,
                        "key": key,
                        "tenant": tenant,
                        "holder": holder,
                        "requests": asked.ask.requests,
                        "tokens": asked.ask.tokens,
                        "since_us": now_us,
                    }
                )
        return Decision(refused, standing([self._accounts[s] for s in concerned], now))

    def settle(self, row: Row[Any], spent: Amount, now_us: int) -> None:
        use = self._accounts[row.tenant, row.key].use
        ask, since = Amount(row.requests, row.tokens), row.since_us // _MILLION
        settled = use.settled(ask, spent, since=since, now=now_us // _MILLION)
        self.put((row.tenant, row.key), settled)

    def put(self, subject: Subject, use: Use) -> None:
        self._accounts[subject] = Account(self._accounts[subject].limits, use)
        self._changed.add(subject)

    async def write(self, session: AsyncSession) -> None:
        changed = [
            {"of_tenant": tenant, "of_key": key, **_use_columns(self._accounts[tenant, key].use)}
            for tenant, key in self._changed
        ]
        if changed:
            await session.execute(_WRITE, changed)


async def _lock(session: AsyncSession, subjects: Sequence[Subject]) -> _Locked:
    tenants, keys = {tenant for tenant, _ in subjects}, {key for _, key in subjects}
    rows = await session.execute(
        _QUOTAS.where(QuotaRow.tenant.in_(list(tenants)), QuotaRow.key.in_(list(keys)))
        .order_by(QuotaRow.tenant, QuotaRow.key)
        .with_for_update()
    )
    return _Locked({(row.tenant, row.key): _account(row) for row in rows})


async def _settle(
    session: AsyncSession,
    quotas: _Locked,
    which: Any,
    now_us: int,
    spent: Callable[[Row[Any]], Amount],
) -> int:
    """Each reservation once: what is deleted by another is not there. How many rows there were."""
    deleted = delete(_RESERVATIONS).where(which).returning(*_RESERVATIONS.c)
    rows = (await session.execute(deleted)).all()
    for row in rows:
        quotas.settle(row, spent(row), now_us)
    return len(rows)


def _subjects(reservation: Reservation) -> list[Subject]:
    subjects: list[Subject] = [(reservation.tenant, "")]
    return subjects + ([(reservation.tenant, reservation.key)] if reservation.key else [])


def _whole(row: Row[Any]) -> Amount:
    return Amount(row.requests, row.tokens)


def _account(row: Row[Any]) -> Account:
    use = Use(
        running=Amount(row.running_requests, row.running_tokens),
        month=row.month,
        month_tokens=row.month_tokens,
        total_tokens=row.total_tokens,
        window=tuple(Second(*second) for second in json.loads(row.window)),
    )
    return Account(Limits(**{name: getattr(row, name) for name in _LIMITS}), use)


def _use_columns(use: Use) -> dict[str, Any]:
    return {
        "running_requests": use.running.requests,
        "running_tokens": use.running.tokens,
        "month": use.month,
        "month_tokens": use.month_tokens,
        "total_tokens": use.total_tokens,
        "window": json.dumps([[s.at, s.requests, s.tokens] for s in use.window]),
    }


_LIMITS = tuple(asdict(Limits()))
_RESERVATIONS: Any = ReservationRow.__table__
_QUOTAS = select(*QuotaRow.__table__.columns)
_ANY_LIMIT = or_(*(getattr(QuotaRow, name).is_not(None) for name in _LIMITS))
_TABLE: Any = QuotaRow.__table__
_WRITE = (
    update(_TABLE)
    .where(_TABLE.c.tenant == bindparam("of_tenant"), _TABLE.c.key == bindparam("of_key"))
    .values({name: bindparam(name) for name in _use_columns(Use())})
)
