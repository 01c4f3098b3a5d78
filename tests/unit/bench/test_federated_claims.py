"""What is said of finished cells: never more than they show."""

import statistics

import pytest

from bench.experiments import grid
from bench.experiments.cells import Measured, Outcome
from bench.experiments.claims import Claim, claims, interval, share

SENT = {grid.FULL: 1000, grid.LORA: 33, grid.SLORA: 28, grid.SPARSE: 11}


def results(**by_method: list[float]) -> dict[tuple[str, float], dict[int, Outcome]]:
    """Accuracies by seed, of all alphas."""
    return {
        (method, alpha): {seed: outcome(test, SENT[method]) for seed, test in enumerate(tests)}
        for method, tests in by_method.items()
        for alpha in grid.ALPHAS
    }


def outcome(test: float, sent: int) -> Outcome:
    curve = (Measured(24, 0.0, test),)
    return Outcome(curve=curve, bytes_down=0, bytes_up=sent, training_seconds=1, seconds=1)


def said(found: dict[tuple[str, float], dict[int, Outcome]], claim: str) -> Claim:
    return next(each for each in claims(found, {}) if each.claim.startswith(claim))


def test_what_was_not_run_holds_nothing() -> None:
    assert {each.holds for each in claims({}, {})} == {"not run"}


@pytest.mark.parametrize(
    ("better", "holds"),
    [
        ([0.02, 0.03, 0.02, 0.03], "undecided: too few seeds"),
        ([0.02, 0.03, 0.02, 0.03, 0.02], "reproduced"),
        ([0.09, -0.08, 0.05, -0.01, 0.02], "not reproduced: interval spans 0"),
        ([-0.02, -0.03, -0.02, -0.03, -0.02], "refuted here"),
    ],
)
def test_the_papers_claim_takes_five_seeds_and_an_interval(better: list[float], holds: str) -> None:
    found = results(
        full=[0.5] * len(better), fedit=[0.4] * len(better), slora=[0.4 + each for each in better]
    )
    assert said(found, "P9 SLoRA - LoRA").holds == holds


def test_methods_are_compared_within_a_seed() -> None:
    found = results(full=[0.5, 0.9], fedit=[0.4, 0.8], slora=[0.45, 0.85])
    del found[grid.LORA, 0.03][0]
    assert said(found, "P9 SLoRA - LoRA").value == pytest.approx(5)
    assert said(found, "P9 SLoRA - LoRA").seeds == 1
    assert said(found, "P9 share").value == pytest.approx(0.5)


def test_the_gap_of_every_seed_counts() -> None:
    found = results(full=[0.6, 0.6], fedit=[0.5, 0.55])
    assert said(found, "P2 full - LoRA at alpha .03, least").holds == "no"
    assert said(found, "P2 full - LoRA, alpha").value == pytest.approx(0)
    assert said(found, "P4").value == pytest.approx(7.5)
    assert said(found, "P4").holds == "no"


def test_traffic_is_compared_exactly() -> None:
    found = results(full=[0.6], fedit=[0.5], slora=[0.5], sparse=[0.5])
    assert said(found, "P6 bytes, SLoRA over fedit").value == 28 / 33
    assert said(found, "P6 bytes, SLoRA over full").holds == "yes"
    assert said(found, "P7").value == pytest.approx(0.001)


def test_an_interval_is_students() -> None:
    """Against a table: t of 0.975 with 4 degrees of freedom is 2.776."""
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    half = 2.776 * statistics.stdev(values) / 5**0.5
    assert interval(values) == pytest.approx((3 - half, 3 + half), abs=1e-3)
    assert interval([1.0]) is None


def test_a_share_is_of_means() -> None:
    parts, wholes = {0: 1.0, 1: 3.0}, {0: 10.0, 1: 10.0, 2: 50.0}
    assert statistics.fmean(share(parts, wholes)) == pytest.approx(0.2)
    assert share({0: 1.0}, {0: 4.0}) == [0.25]
    assert share({}, wholes) == []
