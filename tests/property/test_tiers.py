"""Tiers of service, for any traffic: where there is one they change nothing; gaps are bounded."""

from dataclasses import replace
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.types import Tier
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.tiers import WEIGHTS, Tiers
from tests.property.test_fairness import Traffic, bound_of, played, traffic
from tests.reserving_engine import ReservingEngine


@pytest.mark.parametrize("name", list(POLICIES))
@settings(max_examples=30, deadline=None)
@given(drawn=traffic(), tier=st.sampled_from(Tier))
def test_where_there_is_one_tier_its_policy_alone_decides(
    name: str, drawn: Traffic, tier: Tier
) -> None:
    pool, arrivals = drawn
    tiered = pool, [(at, replace(one, tier=tier)) for at, one in arrivals]
    knobs = Knobs(requests_per_minute=1000)
    one = played(Tiers(lambda _: POLICIES[name](knobs)), tiered)
    assert one.rows == played(POLICIES[name](knobs), drawn).rows


@settings(max_examples=200, deadline=None)
@given(traffic(), st.lists(st.sampled_from(Tier), min_size=1, max_size=20))
def test_counters_of_tiers_that_wait_stay_within_the_bound(
    drawn: Traffic, tiers: list[Tier]
) -> None:
    """OSDI'24, lemma 4.3, with weights: of tiers as of tenants."""
    pool, arrivals = drawn
    each = cycle(tiers)
    coming = [(at, replace(one, tier=next(each))) for at, one in arrivals]
    policy = Tiers(lambda _: POLICIES["vtc"](Knobs()))
    gaps: list[float] = []
    engine = ReservingEngine(policy, pool, lambda: gaps.append(policy._counters.gap))
    engine.play(coming, steps=200)
    assert max(gaps) <= bound_of(drawn) / min(WEIGHTS.values())
