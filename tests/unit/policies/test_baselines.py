"""Rate limits and deficit round robin."""

import pytest

from services.core.errors import ResourceExhausted
from services.core.types import RequestId
from services.policies.fairness.baselines import (
    DeficitRoundRobin,
    DelayingRateLimit,
    FirstComeFirstServed,
    RejectingRateLimit,
)
from services.policies.fairness.cost import PiecewiseLinear, WeightedTokens, bound
from tests.reserving_engine import ReservingEngine, burst, request


def test_nobody_is_overtaken() -> None:
    engine = ReservingEngine(FirstComeFirstServed(), 100)
    big, small = request("big", "a", prompt=40, output=40), request("small", "b", prompt=1)
    engine.play([(0, request("first", "a", prompt=50)), (1, big), (2, small)], steps=30)
    assert engine.first_tokens[small.id] == engine.first_tokens[big.id]


def test_what_is_beyond_the_rate_is_refused_until_the_minute_is_over() -> None:
    policy = RejectingRateLimit(2)
    for i in range(2):
        policy.enqueue(request(str(i), "a"), now=float(i))
    with pytest.raises(ResourceExhausted):
        policy.enqueue(request("2", "a"), now=59.9)
    policy.enqueue(request("3", "b"), now=59.9)
    policy.enqueue(request("4", "a"), now=60.0)
    with pytest.raises(ResourceExhausted):
        policy.enqueue(request("5", "a"), now=60.5)


def test_what_is_beyond_the_rate_waits_and_is_overtaken() -> None:
    policy = DelayingRateLimit(1)
    for i, tenant in enumerate(["a", "a", "b"]):
        policy.enqueue(request(str(i), tenant), now=0.0)
    came = []
    for now in (0.0, 1.0):
        came.append(next(policy.candidates(now)).id)
        policy.admit(RequestId(came[-1]), now)
    assert came == ["0", "2"]
    assert list(policy.candidates(59.0)) == []
    assert next(policy.candidates(60.0)).id == "1"


def test_round_robin_shares_whatever_the_requests_are_like() -> None:
    engine = ReservingEngine(DeficitRoundRobin(quantum=20), 200)
    arrivals = [*burst("short", 2000, prompt=2, output=6), *burst("long", 500, output=40)]
    engine.play(arrivals, steps=600)
    assert engine.shares() == pytest.approx({"short": 0.5, "long": 0.5}, abs=0.03)


def test_a_deficit_that_was_not_used_is_lost() -> None:
    policy = DeficitRoundRobin(quantum=1000)
    policy.enqueue(request("0", "a"), now=0.0)
    policy.admit(next(policy.candidates(0.0)).id, 0.0)
    policy.end(RequestId("0"))
    assert policy._deficits == {}


def test_bands_of_prices_add_up() -> None:
    cost = PiecewiseLinear(prompt=[(0, 1), (10, 0.5)], output=[(0, 2), (4, 3)])
    assert cost(4, 2) == 4 + 4
    assert cost(30, 6) == (10 + 0.5 * 20) + (2 * 4 + 3 * 2)


@pytest.mark.parametrize("bands", [[], [(1.0, 1.0)], [(0.0, 1.0), (0.0, 2.0)], [(0.0, -1.0)]])
def test_bands_that_mean_nothing_are_refused(bands: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=r"bands|prices"):
        PiecewiseLinear(prompt=bands, output=[(0, 1)])


def test_the_bound_is_the_papers() -> None:
    assert bound(WeightedTokens(), longest_prompt=1000, pool_tokens=10_000) == 20_000
    assert bound(WeightedTokens(), longest_prompt=1000, pool_tokens=400) == 1000


def test_the_bound_holds_for_dear_prompts_and_for_outputs_that_become_cheaper() -> None:
    assert bound(WeightedTokens(prompt=4, output=1), longest_prompt=50, pool_tokens=100) == 250
    cheaper = PiecewiseLinear(prompt=[(0, 1)], output=[(0, 4), (5, 1)])
    assert bound(cheaper, longest_prompt=10, pool_tokens=100) == 400
