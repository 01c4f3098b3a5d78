"""What gateways that died left on the books, on SQLite and PostgreSQL."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from services.core.clock import ManualClock
from services.core.types import TenantId, Tier
from services.gateway.leases import Left, Recovery
from services.gateway.ledger import Batch
from services.gateway.records import LOST
from services.gateway.repositories.leases import SqlLeases
from services.gateway.repositories.quotas import SqlQuotaRepository
from services.gateway.repository import SqlTenantRepository
from services.gateway.reservations import Reservation, Settlement
from services.gateway.tenants import Tenant
from services.policies.quotas import Amount, Use
from services.runtime.db import Sessions, time_of
from tests.books import Books, dead, record, rows


@pytest.fixture
def tenant() -> str:
    return f"t{uuid4().hex[:8]}"


@pytest.fixture
def leases(sessions: Sessions) -> SqlLeases:
    return SqlLeases(sessions, SqlQuotaRepository(sessions))


class Budget:
    """Two requests at once, and a hundred tokens, of the tenant's."""

    def __init__(self, sessions: Sessions, tenant: str) -> None:
        self.tenant = TenantId(tenant)
        self.quotas = SqlQuotaRepository(sessions)

    async def hold(self, holder: str) -> Reservation:
        held = Reservation(uuid4().hex, self.tenant, None, Amount(1, 10))
        (decision,) = await self.quotas.write(holder, [held], [])
        assert decision is not None
        assert decision.refusal is None
        return held

    async def use(self) -> Use:
        return (await self.quotas.quota(self.tenant, "")).use


@pytest.fixture
async def budget(sessions: Sessions, tenant: str) -> Budget:
    budget = Budget(sessions, tenant)
    await SqlTenantRepository(sessions).add_tenant(Tenant(budget.tenant, time_of(0)))
    limits = {"concurrent_requests": 2, "tokens_in_total": 100}
    await budget.quotas.set_limits(budget.tenant, "", limits)
    return budget


async def test_what_the_dead_left_is_closed_once(
    books: Books, leases: SqlLeases, sessions: Sessions, tenant: str
) -> None:
    instance, _ = await dead(books, tenant, requests=4, tier=Tier.FLEX)
    others = [SqlLeases(sessions, SqlQuotaRepository(sessions)) for _ in range(4)]
    closed = await asyncio.gather(*(other.close_lost(instance, 7) for other in others))
    assert sorted(left.requests for left in closed) == [0, 0, 0, 4]
    found = await rows(sessions, tenant)
    assert [(r.outcome, r.completion_tokens, r.charge) for r in found] == [(LOST, 2, 7.0)] * 4
    assert {row.tier for row in found} == {"flex"}
    assert instance not in await leases.beats()


async def test_who_died_before_its_first_beat_is_found_too(
    books: Books, leases: SqlLeases, sessions: Sessions, tenant: str
) -> None:
    instance = uuid4().hex[:16]
    await books.write(Batch(instance, opened=[record(tenant)]))
    assert (await leases.beats())[instance] == 0
    assert await leases.close_lost(instance, 0) == Left(1)
    assert (await rows(sessions, tenant))[0].outcome == LOST


async def test_who_lives_keeps_what_it_has_open(
    books: Books, leases: SqlLeases, sessions: Sessions, tenant: str
) -> None:
    instance, _ = await dead(books, tenant)
    await books.write(Batch(instance, beat=8))  # it was only slow
    assert await leases.close_lost(instance, 7) == Left()
    assert (await rows(sessions, tenant))[0].outcome is None


async def test_others_look_after_the_dead_and_not_after_the_living(
    books: Books, leases: SqlLeases, sessions: Sessions, tenant: str
) -> None:
    clock = ManualClock(100.0)
    await dead(books, tenant)
    alive, _ = await dead(books, f"{tenant}-alive")
    recovery = Recovery(leases, instance="another", lease_seconds=10, now=clock.now)
    for beat in range(8, 14):
        await books.write(Batch(alive, beat=beat))
        assert (await rows(sessions, tenant))[0].outcome is None
        await recovery.look()
        clock.advance(2.0)
    await recovery.look()
    assert (await rows(sessions, tenant))[0].outcome == LOST
    assert (await rows(sessions, f"{tenant}-alive"))[0].outcome is None
    await leases.close_lost(alive, 13)


async def test_who_was_taken_for_dead_has_the_last_word(
    books: Books, leases: SqlLeases, sessions: Sessions, tenant: str
) -> None:
    instance, (marked,) = await dead(books, tenant)
    assert await leases.close_lost(instance, 7) == Left(1)
    end = replace(marked, completion_tokens=5, charge=13.0, outcome="STOP")
    await books.write(Batch("another", closed=[replace(end, completion_tokens=1)]))
    assert (await rows(sessions, tenant))[0].completion_tokens == 2
    await books.write(Batch(instance, closed=[end]))
    assert await rows(sessions, tenant) == [end]


async def test_who_leaves_says_so_unless_it_leaves_something_open(
    books: Books, leases: SqlLeases, tenant: str
) -> None:
    instance, (marked,) = await dead(books, tenant)
    await books.leave(instance)
    assert instance in await leases.beats()
    await books.write(Batch(instance, closed=[replace(marked, outcome="STOP")]))
    await books.leave(instance)
    assert instance not in await leases.beats()


async def test_what_the_dead_had_reserved_counts_whole_and_once(
    books: Books, sessions: Sessions, budget: Budget
) -> None:
    instance, _ = await dead(books, budget.tenant)
    held, other = await budget.hold(instance), await budget.hold("alive")
    assert (await budget.use()).running == Amount(2, 20)
    others = [SqlLeases(sessions, SqlQuotaRepository(sessions)) for _ in range(4)]
    left = await asyncio.gather(*(other.close_lost(instance, 7) for other in others))
    assert sorted((one.requests, one.reservations) for one in left) == [(0, 0)] * 3 + [(1, 1)]
    use = await budget.use()
    assert use.running == Amount(1, 10)
    assert use.total_tokens == 10  # what it had delivered is not known: all of it counts
    await budget.quotas.write(instance, [], [Settlement(held, Amount(1, 4))])  # was only slow
    await budget.quotas.write("alive", [], [Settlement(other, Amount(1, 4))] * 2)
    await budget.quotas.write("alive", [], [Settlement(other, Amount(1, 4))])
    use = await budget.use()
    assert use.running == Amount()
    assert use.total_tokens == 14


async def test_who_died_with_nothing_but_a_reservation_is_found_too(
    leases: SqlLeases, budget: Budget
) -> None:
    instance = uuid4().hex[:16]
    await budget.hold(instance)
    assert (await leases.beats())[instance] == 0
    assert await leases.close_lost(instance, 0) == Left(0, 1)
    assert instance not in await leases.beats()
    assert (await budget.use()).running == Amount()


async def test_one_beat_keeps_what_is_open_and_what_is_reserved(
    books: Books, leases: SqlLeases, sessions: Sessions, budget: Budget
) -> None:
    instance, _ = await dead(books, budget.tenant)
    held = await budget.hold(instance)
    await books.write(Batch(instance, beat=8))
    assert await leases.close_lost(instance, 7) == Left()
    assert (await budget.use()).running == Amount(1, 10)
    assert (await rows(sessions, budget.tenant))[0].outcome is None
    await books.leave(instance)  # and leaves both behind
    assert (await leases.beats())[instance] == 0
    await budget.quotas.write(instance, [], [Settlement(held, Amount())])
    assert await leases.close_lost(instance, 0) == Left(1)
