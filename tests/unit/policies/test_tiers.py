"""Tiers of service: parts, not precedence; what a tier does not use the others have."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from services.core.errors import ResourceExhausted
from services.core.types import RequestId, TenantId, Tier
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.policies.fairness.baselines import DelayingRateLimit, RejectingRateLimit
from services.policies.fairness.tiers import Tiers, by_tier
from services.policies.fairness.vtc import VirtualTokenCounters
from tests.reserving_engine import ReservingEngine, burst, request

POOL = 64
PRIORITY, DEFAULT, FLEX = Tier


def tiered(policy: Callable[[Tier], AdmissionPolicy] = lambda _: VirtualTokenCounters()) -> Tiers:
    return Tiers(policy)


def flood(tier: Tier, tenant: str = "", count: int = 1500) -> list[tuple[float, Request]]:
    return [(at, replace(one, tier=tier)) for at, one in burst(tenant or tier.value, count)]


def candidates(policy: Tiers) -> list[str]:
    return [one.id for one in policy.candidates(0.0)]


def test_where_all_ask_for_more_than_there_is_weights_are_their_parts() -> None:
    engine = ReservingEngine(tiered(), POOL)
    engine.play([one for tier in Tier for one in flood(tier)], steps=800)
    parts = {"priority": 16 / 21, "default": 4 / 21, "flex": 1 / 21}
    assert dict(engine.shares()) == pytest.approx(parts, abs=0.02)


def test_what_a_tier_does_not_use_the_others_have() -> None:
    engine = ReservingEngine(tiered(), POOL)
    engine.play(flood(FLEX), steps=100)
    alone = engine.service[TenantId("flex")]
    engine = ReservingEngine(tiered(), POOL)
    engine.play([*flood(FLEX), *flood(PRIORITY, count=2)], steps=100)
    assert engine.service[TenantId("flex")] >= alone - 2 * 24


@pytest.mark.parametrize("tier", Tier)
def test_in_a_tier_its_policy_decides(tier: Tier) -> None:
    engine = ReservingEngine(tiered(), POOL)
    engine.play([*flood(tier, "a"), *flood(tier, "b", count=500)], steps=400)
    assert engine.shares()["a"] == pytest.approx(0.5, abs=0.03)


def test_one_that_asks_for_less_than_its_part_is_next_as_soon_as_it_asks() -> None:
    engine = ReservingEngine(tiered(), POOL)
    asked = [
        (float(at), replace(request(f"p{at}", "light"), tier=PRIORITY)) for at in range(50, 350, 20)
    ]
    engine.play([*flood(DEFAULT), *asked], steps=400)
    waited = [engine.first_tokens[one.id] - at for at, one in asked]
    assert max(waited) <= 8  # until one of those that run has ended


def test_one_that_comes_back_brings_nothing_that_it_did_not_use() -> None:
    engine = ReservingEngine(tiered(), POOL)
    late = [(200.0, one) for _, one in flood(FLEX)]
    engine.play([*flood(DEFAULT), *late], steps=600)
    before, after = engine.rows[200][1], engine.rows[599][1]
    served = {tier: after[tier] - before[tier] for tier in after}
    assert served[TenantId("flex")] / sum(served.values()) == pytest.approx(1 / 5, abs=0.03)


def test_of_two_that_had_the_same_the_higher_is_next() -> None:
    policy = tiered()
    for tier in (FLEX, DEFAULT, PRIORITY):
        policy.enqueue(replace(request(tier.value, "t"), tier=tier), 0.0)
    assert candidates(policy) == ["priority"]


def test_one_in_which_nobody_may_start_stops_no_other() -> None:
    limits: dict[Tier, AdmissionPolicy] = {
        PRIORITY: DelayingRateLimit(1),
        DEFAULT: VirtualTokenCounters(),
    }
    policy = tiered(limits.__getitem__)
    for name in ("first", "second"):
        policy.enqueue(replace(request(name, "t"), tier=PRIORITY), 0.0)
    for name in ("runs", "other"):
        policy.enqueue(request(name, "t", prompt=100), 0.0)
    assert candidates(policy) == ["first"]
    for name in ("first", "runs"):
        policy.admit(RequestId(name), 0.0)
    assert policy.counters["priority"] < policy.counters["default"]
    assert candidates(policy) == ["other"]


def test_one_that_was_not_let_in_leaves_nothing() -> None:
    policy = tiered(lambda _: RejectingRateLimit(1))
    policy.enqueue(request("runs", "t"), 0.0)
    policy.admit(RequestId("runs"), 0.0)
    with pytest.raises(ResourceExhausted):
        policy.enqueue(request("refused", "t"), 0.0)
    policy.end(RequestId("refused"))
    policy.end(RequestId("runs"))
    policy.end(RequestId("runs"))
    assert candidates(policy) == []
    assert not policy._waiting
    assert not policy._running


def test_numbers_by_tier_are_read() -> None:
    assert by_tier("priority=2, flex=0.5") == {PRIORITY: 2.0, FLEX: 0.5}
    assert by_tier("") == {}


@pytest.mark.parametrize(
    "text", ["gold=1", "flex", "flex=0", "flex=-1", "flex=nan", "flex=1,flex=2"]
)
def test_others_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        by_tier(text)
