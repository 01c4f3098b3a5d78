"""Virtual token counters: lifts, weights, refunds, bands, hierarchy, and what is forgotten."""

from collections.abc import Callable

import pytest

from services.core.types import Digest, RequestId, Share
from services.policies.fairness.admission import Request
from services.policies.fairness.cost import (
    Cost,
    Flops,
    PiecewiseLinear,
    ProfiledQuadratic,
    WeightedTokens,
)
from services.policies.fairness.lengths import MovingAverages
from services.policies.fairness.levels import Levels, by_organisation
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.vtc import Rules, VirtualTokenCounters
from tests.reserving_engine import ReservingEngine, burst, request

POOL = 200
BOUND = 2 * POOL
COSTS: list[Cost] = [
    WeightedTokens(),
    ProfiledQuadratic(),
    Flops(parameters=7e9, layers=32, width=4096),
    PiecewiseLinear(prompt=[(0, 1), (10, 0.5)], output=[(0, 2), (4, 3), (7, 4)]),
]


def alone_and_then_two_bursts(policy: str) -> ReservingEngine:
    """V6: "a" alone for long, never with anybody waiting behind it; then "b" and "a" at once."""
    engine = ReservingEngine(POLICIES[policy](Knobs()), POOL)
    engine.play([(10.0 * i, request(f"early {i}", "a")) for i in range(200)], steps=2001)
    assert not engine.waiting
    start = len(engine.rows)
    engine.play(burst("b", 200, at=2001) + burst("a", 200, at=2002), steps=400)
    engine.rows = engine.rows[start:]
    return engine


def test_who_was_alone_does_not_stand_behind_a_burst() -> None:
    assert alone_and_then_two_bursts("vtc").widest_gap("a", "b") <= 2 * BOUND


@pytest.mark.parametrize("baseline", ["lcf", "fcfs"])
def test_it_would_without_the_lift(baseline: str) -> None:
    assert alone_and_then_two_bursts(baseline).widest_gap("a", "b") > 2 * BOUND


@pytest.mark.parametrize(("policy", "most"), [("vtc", 0.55), ("lcf", 1.0)])
def test_who_joins_later_has_no_credit_for_its_absence(policy: str, most: float) -> None:
    """V7; least counter first gives the joiner nearly everything."""
    engine = ReservingEngine(POLICIES[policy](Knobs()), POOL)
    engine.play(burst("a", 2000), steps=600)
    start = len(engine.rows)
    engine.play(burst("b", 600, at=600), steps=300)
    share = engine.shares(since=start)["b"]
    assert share <= most
    assert (share > 0.8) == (policy == "lcf")


def test_weights_are_the_shares() -> None:
    """V11."""
    weights = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    engine = ReservingEngine(VirtualTokenCounters(), POOL)
    shares = {tenant: Share(weight=weight) for tenant, weight in weights.items()}
    engine.play([one for t in weights for one in burst(t, 1500, share=shares[t])], steps=800)
    for tenant, share in engine.shares().items():
        assert share == pytest.approx(weights[tenant] / 10, abs=0.02)


@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: type(cost).__name__)
@pytest.mark.parametrize("predicts", [False, True])
@pytest.mark.parametrize("produced", [0, 3, 8])
def test_charges_come_to_the_cost_of_what_was_produced(
    cost: Cost, predicts: bool, produced: int
) -> None:
    """V13: also when the request ends early, and what was predicted is given back."""
    policy = VirtualTokenCounters(Rules(cost=cost, lengths=MovingAverages() if predicts else None))
    for name in ("runs", "waits"):
        policy.enqueue(request(name, "a", prompt=13), now=0.0)
    policy.admit(RequestId("runs"), 0.0)
    for _ in range(produced):
        policy.produced(RequestId("runs"))
    policy.end(RequestId("runs"))
    assert policy.counters["a"] == pytest.approx(cost(13, produced), rel=1e-9)


def test_predicted_output_is_charged_when_a_request_starts() -> None:
    policy = VirtualTokenCounters(Rules(lengths=MovingAverages()))
    for i in range(3):
        policy.enqueue(request(str(i), "a", prompt=10, output=50), now=0.0)
    policy.admit(RequestId("0"), 0.0)
    assert policy.counters["a"] == 10 + 2 * 50  # nothing is known: what it may use
    policy.produced(RequestId("0"), 20)
    policy.end(RequestId("0"))
    policy.admit(RequestId("1"), 0.0)
    assert policy.counters["a"] == 2 * (10 + 2 * 20)
    policy.produced(RequestId("1"), 30)
    assert policy.counters["a"] == 10 + 2 * 20 + 10 + 2 * 30


def test_within_a_band_resident_adapters_come_first() -> None:
    policy = VirtualTokenCounters(Rules(band=30))
    for i, (tenant, adapter) in enumerate([("a", "x"), ("b", "y"), ("c", "y")]):
        policy.enqueue(request(str(i), tenant, adapter=adapter), now=0.0)
        policy.enqueue(request(f"{i}'", tenant, adapter=adapter), now=0.0)
    policy.admit(RequestId("1"), 0.0)
    policy.produced(RequestId("1"), 20)  # "b" is beyond the band

    assert [one.id for one in policy.candidates(0.0, [Digest("y")])] == ["2", "0"]


def test_a_resident_adapter_gains_the_band_and_no_more() -> None:
    band, gaps = 100.0, []
    policy = VirtualTokenCounters(Rules(band=band))
    engine = ReservingEngine(
        policy, POOL, before_admission=lambda: gaps.append(policy.gap), resident=[Digest("x")]
    )
    engine.play([*burst("a", 2000, adapter="x"), *burst("b", 2000, adapter="y")], steps=600)
    assert band <= max(gaps) <= BOUND + band


def sybil(levels: Callable[[Request], Levels], adapters: int) -> float:
    """B7: the share of one who comes with so many adapters, against one who has one."""
    engine = ReservingEngine(VirtualTokenCounters(Rules(levels=levels)), POOL)
    many = [
        each
        for i in range(adapters)
        for each in burst("many", 800, at=i / 100, adapter=f"m{i}", share=Share("many"))
    ]
    engine.play([*many, *burst("one", 2000, adapter="o", share=Share("one"))], steps=600)
    return engine.shares()["many"]


@pytest.mark.parametrize("adapters", [1, 2, 4])
def test_splitting_into_adapters_buys_nothing(adapters: int) -> None:
    assert sybil(by_organisation, adapters) == pytest.approx(0.5, abs=0.03)


def test_it_would_if_every_adapter_had_a_counter_of_its_own() -> None:
    def by_adapter(one: Request) -> Levels:
        return ((one.adapter or "", 1.0),)

    assert sybil(by_adapter, 4) == pytest.approx(0.8, abs=0.03)


def test_an_organisations_tenants_share_what_it_gets() -> None:
    engine = ReservingEngine(VirtualTokenCounters(Rules(levels=by_organisation)), POOL)
    arrivals = [
        *burst("a", 1000, share=Share("x")),
        *burst("b", 1000, share=Share("x")),
        *burst("c", 1000, share=Share("y")),
    ]
    engine.play(arrivals, steps=600)
    assert engine.shares() == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.5}, abs=0.02)


def test_splitting_into_tenants_buys_nothing() -> None:
    """B7: one tenant of an organisation gets as much as five of another."""
    engine = ReservingEngine(VirtualTokenCounters(Rules(levels=by_organisation)), POOL)
    one = burst("one", 2000, share=Share("x"))
    five = [each for i in range(5) for each in burst(f"t{i}", 500, share=Share("y"))]
    engine.play([*five, *one], steps=600)
    assert engine.shares()["one"] == pytest.approx(0.5, abs=0.03)
    flat = ReservingEngine(VirtualTokenCounters(), POOL)
    flat.play([*five, *one], steps=600)
    assert flat.shares()["one"] == pytest.approx(1 / 6, abs=0.03)  # where it does


def test_weights_are_shares_on_every_level() -> None:
    engine = ReservingEngine(VirtualTokenCounters(Rules(levels=by_organisation)), POOL)
    arrivals = [
        *burst("a", 1500, share=Share("x", weight=3.0, organisation_weight=2.0)),
        *burst("b", 1500, share=Share("x", weight=1.0, organisation_weight=2.0)),
        *burst("c", 1500, share=Share("y", weight=9.0, organisation_weight=1.0)),
        *burst("d", 1500, share=Share(weight=1.0)),  # one of its own
    ]
    engine.play(arrivals, steps=800)
    expected = {"a": 0.375, "b": 0.125, "c": 0.25, "d": 0.25}
    assert engine.shares() == pytest.approx(expected, abs=0.02)


def test_who_is_idle_and_had_no_more_than_those_who_wait_is_forgotten() -> None:
    """V17: whoever comes back is treated as if it had been remembered."""
    policy = VirtualTokenCounters(Rules(levels=by_organisation))
    for i in range(1000):
        name = RequestId(str(i))
        policy.enqueue(request(name, f"t{i}"), now=0.0)
        policy.admit(name, 0.0)
        policy.produced(name, 5)
        policy.end(name)
    busy = ReservingEngine(policy, POOL)
    busy.play(burst("busy", 300), steps=100)
    assert policy.num_known < 10
    assert len(policy._levels) < 10  # nor anything below them
    lowest = min(policy.counters.values())
    policy.enqueue(request("back", "t7"), now=0.0)
    assert policy.counters["tenant t7"] == lowest


def test_who_had_more_than_those_who_wait_is_not_forgotten() -> None:
    policy = VirtualTokenCounters()
    policy.enqueue(request("0", "poor"), now=0.0)
    policy.enqueue(request("1", "rich"), now=0.0)
    policy.admit(RequestId("1"), 0.0)
    policy.produced(RequestId("1"), 500)
    policy.end(RequestId("1"))
    assert next(policy.candidates(1.0)).tenant == "poor"
    policy.enqueue(request("2", "rich"), now=1.0)
    policy.enqueue(request("3", "new"), now=1.0)
    assert policy.counters == {"poor": 0, "rich": 8 + 2 * 500, "new": 0}


def test_what_is_cancelled_while_it_waits_costs_nothing() -> None:
    policy = VirtualTokenCounters()
    for name in ("0", "1"):
        policy.enqueue(request(name, "a"), now=0.0)
    policy.end(RequestId("0"))
    policy.end(RequestId("nobody"))
    assert policy.counters == {"a": 0}
    assert [one.id for one in policy.candidates(0.0)] == ["1"]


def test_who_is_new_is_taken_for_the_average_of_all() -> None:
    lengths = MovingAverages(most_tenants=2)
    for tenant, tokens in (("a", 10), ("b", 10), ("c", 10), ("a", 40)):
        lengths.learn(request("x", tenant), tokens)
    expected = lengths.predict(request("x", "new", output=999))
    assert 10 < expected < 40
    assert lengths.predict(request("x", "b", output=999)) == expected  # not seen for longest
    assert lengths.predict(request("x", "c", output=999)) == 10
    assert lengths.predict(request("x", "c", output=5)) == 5
