"""V13: what a tenant is charged comes to what its requests cost, whatever the cost, however tokens
come, however wrong a prediction was, and whenever a request is given up."""

import math
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.types import RequestId, Share
from services.policies.fairness.admission import Request
from services.policies.fairness.cost import (
    Cost,
    Flops,
    PiecewiseLinear,
    ProfiledQuadratic,
    WeightedTokens,
)
from services.policies.fairness.levels import Levels, by_organisation, by_tenant
from services.policies.fairness.profile import Step, StepProfile
from services.policies.fairness.vtc import Rules, VirtualTokenCounters
from tests.reserving_engine import request

PRICES = st.floats(0, 10)
TOKENS = st.integers(1, 300)


@st.composite
def bands(draw: st.DrawFn) -> list[tuple[float, float]]:
    starts = draw(st.lists(st.integers(1, 200), max_size=4, unique=True).map(sorted))
    return [(float(start), draw(PRICES)) for start in [0, *starts]]


@cache
def marginal_milliseconds(step: float, prefill: float, sequence: float, read: float) -> Cost:
    """Learnt from steps that take so long."""
    profile = StepProfile()
    for n in range(200):
        prompt, sequences = (0, 64, 256)[n % 3], 1 + n % 17
        tokens = sequences * (20 + 7 * (n % 29))
        taken = step + prefill * prompt + sequence * sequences + read * tokens
        profile.observe(Step(prompt, sequences, tokens, taken))
    cost = profile.cost()
    assert cost is not None
    return cost


COSTS: dict[str, st.SearchStrategy[Cost]] = {
    "weighted tokens": st.builds(WeightedTokens, PRICES, PRICES),
    "flops": st.builds(
        Flops, st.floats(1e6, 1e11), st.integers(1, 100), st.sampled_from([512, 4096])
    ),
    "profiled quadratic": st.builds(ProfiledQuadratic, PRICES, PRICES, PRICES, PRICES, PRICES),
    "piecewise linear": st.builds(PiecewiseLinear, bands(), bands()),
    "marginal milliseconds": st.builds(
        marginal_milliseconds,
        *(st.sampled_from(of) for of in ([0.0, 5.0], [0.1, 0.3], [0.2, 1.0], [0.0, 0.002])),
    ),
}


class Says:
    """Predicts what it was made to."""

    def __init__(self, tokens: float) -> None:
        self._tokens = tokens

    def predict(self, request: Request) -> float:
        return self._tokens

    def learn(self, request: Request, output_tokens: int) -> None:
        """Nothing."""


def charged(rules: Rules, prompt: int, pieces: list[int], weight: float) -> tuple[float, float]:
    """For one request that ends after these pieces: when it has ended, and the least on the way."""
    policy, share = VirtualTokenCounters(rules), Share(weight=weight)
    for name in ("runs", "waits"):
        policy.enqueue(request(name, "a", prompt=prompt, output=999, share=share), now=0.0)

    def counter() -> float:
        return next(iter(policy.counters.values()))

    policy.admit(RequestId("runs"), 0.0)
    least = counter()
    for piece in pieces:
        policy.produced(RequestId("runs"), piece)
        least = min(least, counter())
    policy.end(RequestId("runs"))
    policy.end(RequestId("runs"))
    return counter(), least


@pytest.mark.parametrize("name", COSTS)
@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    prompt=TOKENS,
    pieces=st.just([]) | st.lists(st.integers(1, 40), max_size=12),  # given up, or not
    predicted=st.none() | st.floats(0, 600),
    levels=st.sampled_from([by_tenant, by_organisation]),
    weight=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_a_request_is_charged_what_it_came_to(
    name: str,
    data: st.DataObject,
    prompt: int,
    pieces: list[int],
    predicted: float | None,
    levels: Callable[[Request], Levels],
    weight: float,
) -> None:
    """In the end, whether it finished or was given up; and never less before."""
    cost = data.draw(COSTS[name])
    lengths = None if predicted is None else Says(predicted)
    rules = Rules(cost=cost, levels=levels, lengths=lengths)
    end, least = charged(rules, prompt, pieces, weight)
    due = cost(prompt, sum(pieces)) / weight
    assert end == pytest.approx(due, rel=1e-9, abs=1e-9)
    assert least >= cost(prompt, 0) / weight * (1 - 1e-9)


@pytest.mark.parametrize("name", COSTS)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), prompt=TOKENS)
def test_what_never_ran_costs_nothing(name: str, data: st.DataObject, prompt: int) -> None:
    policy = VirtualTokenCounters(Rules(cost=data.draw(COSTS[name]), lengths=Says(500)))
    for i in range(3):
        policy.enqueue(request(str(i), "a", prompt=prompt), now=0.0)
    policy.end(RequestId("1"))
    assert policy.counters == {"a": 0.0}


@pytest.mark.parametrize("name", COSTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), prompt=TOKENS, output=TOKENS, more=TOKENS)
def test_more_never_costs_less(
    name: str, data: st.DataObject, prompt: int, output: int, more: int
) -> None:
    """So that no charge on the way is a gift."""
    cost = data.draw(COSTS[name])
    known = cost(prompt, output)
    assert math.isfinite(known)
    assert 0 <= known <= cost(prompt, output + more) * (1 + 1e-12)
    assert known <= cost(prompt + more, output) * (1 + 1e-12)
