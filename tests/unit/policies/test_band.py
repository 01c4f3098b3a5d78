"""A band that adapts: to what loads cost, within what it promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.types import Digest, RequestId
from services.policies.fairness.band import AdaptiveBand, BandKnobs, parsed
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.vtc import Rules, VirtualTokenCounters
from tests.reserving_engine import ReservingEngine, burst, request


def told(band: AdaptiveBand, waited: float, *, seconds: float, charge: float = 400.0) -> None:
    """An admission a second; 40 sequences on 8 slots."""
    for second in range(round(seconds)):
        band.admitted(float(second), waited=waited, batch=40, slots=8)
        band.charged(charge)


def test_while_loads_are_dear_it_is_a_slots_part_of_a_batch() -> None:
    band = AdaptiveBand()
    told(band, 0.5, seconds=100)
    assert band.width == pytest.approx(40 / 8 * 400)


def test_while_loads_cost_nothing_it_is_none() -> None:
    band = AdaptiveBand()
    told(band, 0.0, seconds=100)
    assert band.width == 0


def test_between_it_is_as_the_part_of_the_time_that_loads_take() -> None:
    band = AdaptiveBand(BandKnobs(dear=0.2))
    told(band, 0.05, seconds=200)
    assert band.lost == pytest.approx(0.05, rel=0.05)
    assert band.width == pytest.approx(40 / 8 * 400 * 0.05 / 0.2, rel=0.05)


def test_what_was_lost_long_ago_counts_for_little() -> None:
    band = AdaptiveBand()
    told(band, 0.5, seconds=100)
    band.admitted(400.0, waited=0.0, batch=40, slots=8)
    assert band.width < 1


@given(
    st.floats(0, 3000),
    st.floats(0, 3000),
    st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(0, 1e4), st.integers(1, 999), st.floats(0, 1e9))
    ),
)
def test_whatever_it_is_told_it_stays_within_its_knobs(
    one: float, other: float, admissions: list[tuple[float, float, int, float]]
) -> None:
    knobs = BandKnobs(least=min(one, other), most=max(one, other))
    band = AdaptiveBand(knobs)
    for now, waited, batch, charge in admissions:
        band.admitted(now, waited=waited, batch=batch, slots=1)
        band.charged(charge)
        assert knobs.least <= band.width <= knobs.most == band.most


def test_a_policy_tells_it_what_requests_are_charged() -> None:
    band = AdaptiveBand()
    policy = POLICIES["vtc-adapter"](Knobs(band=band))
    assert isinstance(policy, VirtualTokenCounters)
    policy.enqueue(request("0", "a", prompt=100), 0.0)
    policy.admit(RequestId("0"), 0.0)
    band.admitted(0.0, waited=10.0, batch=4, slots=2)
    policy.produced(RequestId("0"), 50)
    policy.end(RequestId("0"))
    assert policy.band == 4 / 2 * (100 + 2 * 50)


def test_by_name_it_is_a_number_or_auto() -> None:
    assert parsed("1500") == 1500
    assert isinstance(parsed("auto"), AdaptiveBand)
    for nonsense in ("-1", "nan", "wide"):
        with pytest.raises(ValueError, match=r"band|float"):
            parsed(nonsense)


@pytest.mark.parametrize(
    "knobs", [{"least": -1.0}, {"least": 2.0, "most": 1.0}, {"most": float("inf")}, {"dear": 0.0}]
)
def test_knobs_that_promise_nothing_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"band|dear"):
        BandKnobs(**knobs)


@pytest.mark.parametrize("most", [0.0, 300.0])
def test_a_policy_promises_the_most_however_dear_loads_are(most: float) -> None:
    """B2: a resident adapter against one that is not; U is 400."""
    band = AdaptiveBand(BandKnobs(most=most))
    policy, gaps = VirtualTokenCounters(Rules(band=band)), [0.0]

    def admits() -> None:
        gaps.append(policy.gap)
        band.admitted(float(len(gaps)), waited=10.0, batch=40, slots=1)

    engine = ReservingEngine(policy, 200, before_admission=admits, resident=[Digest("x")])
    engine.play([*burst("a", 2000, adapter="x"), *burst("b", 2000, adapter="y")], steps=600)
    assert most <= max(gaps) <= 400 + most
