"""How many homes an adapter has: few changes under any load, and no memory of the idle."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.types import Digest
from services.policies.placement.replicas import Replicas, Rules

HOT = Digest("hot")
RULES = Rules(most=16)
WARM = 600.0  # two of the slow average


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 6.0), st.integers(0, 1000))
def test_a_steady_load_changes_the_count_once_at_most(workers: float, seed: int) -> None:
    """`workers`: that it keeps busy, requests of half a second at random times."""
    draw, replicas = random.Random(seed), Replicas(RULES)
    counts = [replicas.count(HOT)]
    for second in range(2400):
        for _ in range(_poisson(draw, 2 * workers)):
            replicas.arrived(HOT, float(second), 500.0)
        replicas.settle(second + 0.5)
        counts.append(replicas.count(HOT))
    settled = counts[int(WARM) :]
    assert sum(a != b for a, b in itertools.pairwise(settled)) <= 1
    assert min(16, workers / RULES.share) * 0.8 <= settled[-1] <= max(2, 3 * workers / RULES.share)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=10, max_size=30), st.integers(1, 90))
def test_a_load_that_flaps_changes_the_count_seldom(rates: list[int], span: int) -> None:
    replicas, now = Replicas(RULES), 0.0
    counts, fallen = [1], []
    for rate in rates:
        for _ in range(span):
            replicas.arrived(HOT, now, 500.0, rate)
            if replicas.settle(now):
                fallen.append(now)
            counts.append(replicas.count(HOT))
            now += 1.0
    assert all(late - early >= RULES.least_seconds for early, late in itertools.pairwise(fallen))
    for start in range(0, len(counts), 60):
        minute = counts[start : start + 61]
        changes = sum(a != b for a, b in itertools.pairwise(minute))
        assert changes <= RULES.most  # growth by a quarter at least each time, and one fall


def test_a_flash_crowd_gets_homes_at_once() -> None:
    replicas = Replicas(RULES)
    replicas.arrived(HOT, 0.0, 500.0)
    for second in range(5):
        replicas.arrived(HOT, float(second), 500.0, 40)
    assert replicas.count(HOT) >= 5


def test_a_few_requests_by_chance_are_no_heat() -> None:
    replicas = Replicas(Rules(share=0.1))
    for _ in range(6):  # 0.1 of a worker over half a minute: it might be chance
        replicas.arrived(HOT, 0.0, 1000.0)
    assert replicas.count(HOT) == 1


def test_the_crowd_goes_and_its_homes_go_late() -> None:
    replicas = Replicas(RULES)
    for second in range(30):
        replicas.arrived(HOT, float(second), 500.0, 20)
    most = replicas.count(HOT)
    assert most > 8
    assert replicas.settle(40.0) == {}
    assert replicas.count(HOT) == most
    for second in range(100, 4000, 10):
        replicas.settle(float(second))
    assert replicas.count(HOT) == 1
    assert replicas.counts() == {}


@given(st.integers(0, 30))
def test_it_never_has_more_than_the_most(rate: int) -> None:
    replicas = Replicas(Rules(most=3))
    for second in range(50):
        replicas.arrived(HOT, float(second), 500.0, rate)
    assert 1 <= replicas.count(HOT) <= 3


def test_a_pin_is_a_floor() -> None:
    replicas = Replicas(RULES)
    replicas.pin(HOT, 4)
    assert replicas.counts() == {HOT: 4}
    for second in range(60):
        replicas.arrived(HOT, float(second), 500.0, 10)
    assert replicas.count(HOT) > 4
    for second in range(60, 5000):
        replicas.settle(float(second))
    assert replicas.count(HOT) == 4
    replicas.pin(HOT, 0)
    assert replicas.count(HOT) == 1


def test_the_idle_are_forgotten() -> None:
    replicas = Replicas(Rules(remembered=500))
    for number in range(5000):
        replicas.arrived(Digest(str(number)), number / 1000, 500.0)
    assert replicas.known == 500
    later = 5 + 6 * RULES.slow_seconds
    for second in range(500):
        replicas.arrived(HOT, later + second, 0.0)
    assert replicas.known == 1


@pytest.mark.parametrize(
    "wrong",
    [{"margin": 0.9}, {"share": 0.0}, {"most": 0}, {"fast_seconds": 400.0}, {"spare": 0.9}],
)
def test_rules_that_would_thrash_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Rules(**wrong)  # type: ignore[arg-type]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Replicas().arrived(HOT, 0.0, -1.0)
    with pytest.raises(ValueError, match="fewer than 0"):
        Replicas().pin(HOT, -1)


def _poisson(draw: random.Random, mean: float) -> int:
    count, left = 0, draw.expovariate(1.0)
    while left < mean:
        count += 1
        left += draw.expovariate(1.0)
    return count
