"""What VTC proves (OSDI'24, section 4), for any traffic: on an engine such as its proofs have."""

from itertools import combinations, cycle
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.policies.fairness.admission import AdmissionPolicy, Request
from services.policies.fairness.band import AdaptiveBand, BandKnobs
from services.policies.fairness.bounds import Bound, Room
from services.policies.fairness.cost import (
    Cost,
    Flops,
    PiecewiseLinear,
    ProfiledQuadratic,
    WeightedTokens,
    bound,
)
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.vtc import Rules, VirtualTokenCounters
from tests.reserving_engine import ReservingEngine, request

COST = WeightedTokens()
ADAPTERS = ["a", "b", "c"]
Traffic = tuple[int, list[tuple[float, Request]]]


@st.composite
def traffic(draw: st.DrawFn) -> Traffic:
    """Tokens of the pool, and requests that fit it."""
    pool = draw(st.integers(40, 600))
    tenants = draw(st.integers(2, 8))
    half = st.integers(1, pool // 2)
    sizes = st.tuples(st.integers(0, 120), st.integers(0, tenants - 1), half, half)
    drawn = draw(st.lists(sizes, min_size=5, max_size=60))
    adapters = draw(st.lists(st.sampled_from(ADAPTERS), min_size=60, max_size=60))
    arrivals = [
        (float(at), request(str(i), f"t{who}", prompt=n, output=m, adapter=adapters[i]))
        for i, (at, who, n, m) in enumerate(drawn)
    ]
    return pool, arrivals


def played(policy: AdmissionPolicy, drawn: Traffic, **how: object) -> ReservingEngine:
    pool, arrivals = drawn
    engine = ReservingEngine(policy, pool, **how)  # type: ignore[arg-type]
    engine.play(arrivals, steps=200)
    return engine


def bound_of(drawn: Traffic) -> float:
    longest = max(one.prompt_tokens for _, one in drawn[1])
    return bound(COST, longest_prompt=longest, pool_tokens=drawn[0])


@settings(max_examples=500, deadline=None)
@given(traffic())
def test_counters_of_those_who_wait_stay_within_the_bound(drawn: Traffic) -> None:
    """V1, Lemma 4.3: before every admission."""
    policy = VirtualTokenCounters()
    gaps: list[float] = []
    played(policy, drawn, before_admission=lambda: gaps.append(policy.gap))
    assert max(gaps, default=0) <= bound_of(drawn)


@settings(max_examples=200, deadline=None)
@given(traffic())
def test_two_who_wait_get_the_same_within_twice_the_bound(drawn: Traffic) -> None:
    """Theorem 4.4."""
    engine = played(VirtualTokenCounters(), drawn)
    for one, other in combinations({one.tenant for _, one in drawn[1]}, 2):
        assert engine.widest_gap(one, other) <= 2 * bound_of(drawn)


@settings(max_examples=200, deadline=None)
@given(traffic(), st.sampled_from([50.0, 200.0, 1000.0]))
def test_a_band_widens_the_bound_by_itself_and_no_more(drawn: Traffic, band: float) -> None:
    """B2: whatever adapters are resident."""
    policy = VirtualTokenCounters(Rules(band=band))
    gaps: list[float] = []
    played(policy, drawn, before_admission=lambda: gaps.append(policy.gap), resident=["a"])
    assert max(gaps, default=0) <= bound_of(drawn) + band


@settings(max_examples=200, deadline=None)
@given(traffic(), st.lists(st.floats(0, 3), min_size=1, max_size=20))
def test_a_band_that_adapts_widens_the_bound_by_its_widest(
    drawn: Traffic, waits: list[float]
) -> None:
    """Whatever loads cost, one after the other."""
    band = AdaptiveBand(BandKnobs(most=300.0, seconds=1.0))
    policy, waited, gaps = VirtualTokenCounters(Rules(band=band)), cycle(waits), [0.0]

    def admits() -> None:
        gaps.append(policy.gap)
        band.admitted(float(len(gaps)), waited=next(waited), batch=8, slots=1)

    played(policy, drawn, before_admission=admits, resident=["a"])
    assert max(gaps) <= bound_of(drawn) + band.most


COSTS: list[Cost] = [
    COST,
    ProfiledQuadratic(),
    Flops(parameters=1e9, layers=24, width=2048),
    WeightedTokens(prompt=4, output=1),
    PiecewiseLinear(prompt=[(0, 1), (10, 0.5)], output=[(0, 2), (4, 3), (7, 4)]),
    PiecewiseLinear(prompt=[(0, 1)], output=[(0, 4), (5, 1)]),
]


@settings(max_examples=300, deadline=None)
@given(traffic(), st.sampled_from(COSTS), st.booleans(), st.sampled_from([0.0, 100.0]), st.data())
def test_counters_stay_within_what_the_rules_promise(
    drawn: Traffic, cost: Cost, predicts: bool, band: float, data: st.DataObject
) -> None:
    """Whatever a request costs, with weights, with predictions that are wrong, with a band."""
    weights = data.draw(st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=8, max_size=8))
    rules = Rules(
        cost=cost,
        levels=lambda one: ((one.tenant, weights[int(one.tenant[1:])]),),
        lengths=Wrong(data.draw(st.randoms(use_true_random=False))) if predicts else None,
        band=band,
    )
    policy, gaps = VirtualTokenCounters(rules), [0.0]
    played(policy, drawn, before_admission=lambda: gaps.append(policy.gap), resident=["a"])
    longest = max(one.prompt_tokens for _, one in drawn[1])
    promise = policy.bound(Room(longest, drawn[0], least_weight=min(weights)))
    assert promise is not None
    assert max(gaps) <= promise.counters + 1e-6


class Wrong:
    """Predicts anything up to what a request may make."""

    def __init__(self, random_: Random) -> None:
        self._random = random_

    def predict(self, request: Request) -> float:
        return self._random.randint(0, request.max_tokens)

    def learn(self, request: Request, output_tokens: int) -> None:
        """Nothing."""


def test_who_promises_nothing_says_so() -> None:
    assert VirtualTokenCounters(Rules(lifts=False)).bound(Room(1, 1)) is None


def test_promises_are_the_papers_and_the_plans() -> None:
    """U = max(w_p L, w_q M), 2 (U + Q), and k 2U + 2 R D with several gateways."""
    room = Room(1000, 10_000)
    assert VirtualTokenCounters().bound(room) == Bound(20_000, 40_000)
    assert VirtualTokenCounters().bound(Room(30_000, 10_000)) == Bound(30_000, 60_000)
    assert VirtualTokenCounters(Rules(band=500.0)).bound(room) == Bound(20_500, 41_000)
    adaptive = AdaptiveBand(BandKnobs(most=700.0))
    assert VirtualTokenCounters(Rules(band=adaptive)).bound(room) == Bound(20_700, 41_400)
    several = Room(1000, 10_000, gateways=3, rate=1340.0, seconds=5.0)
    assert VirtualTokenCounters().bound(several) == Bound(20_000, 3 * 40_000 + 2 * 1340 * 5)


@settings(max_examples=60, deadline=None)
@given(traffic(), st.sampled_from(sorted(POLICIES)), st.data())
def test_every_policy_admits_all_and_keeps_nothing(
    drawn: Traffic, name: str, data: st.DataObject
) -> None:
    """Also when some are cancelled while they wait or run."""
    engine = ReservingEngine(POLICIES[name](Knobs(requests_per_minute=10_000)), drawn[0])
    engine.play(drawn[1], steps=130)
    for victim in data.draw(st.lists(st.sampled_from(sorted(engine.requests)), max_size=5)):
        engine.cancel(victim)
        engine.cancel(victim)
    engine.drain()
    assert not engine.waiting
    assert not engine.running
    assert list(engine.policy.candidates(engine.step)) == []


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_nobody_is_admitted_out_of_a_tenants_own_order(name: str) -> None:
    policy = POLICIES[name](Knobs())
    for i in range(5):
        policy.enqueue(request(str(i), "acme"), now=0.0)
    came = []
    for _ in range(5):
        first = next(policy.candidates(1.0))
        policy.admit(first.id, 1.0)
        came.append(first.id)
    assert came == ["0", "1", "2", "3", "4"]
