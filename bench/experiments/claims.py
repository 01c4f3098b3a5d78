"""What the paper says and the pilot saw, asked of finished cells: P1 to P9 of the test plan.

Accuracies are means of the last three measurements on a balanced test set, differences are points,
and methods are compared within a seed, as a seed is a split. What was not run says so.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t

from bench.experiments.grid import FFA, FULL, KEPT, LORA, SKEWED, SLORA, SPARSE, Results

ENOUGH = 5  # seeds, before a claim of the paper's is called reproduced
CONFIDENCE = 0.95
HEAD_SHARE = 0.005  # of a full model's payload that a head may be


@dataclass(frozen=True, slots=True)
class Claim:
    claim: str
    seeds: int
    value: float | None
    interval: str
    target: str
    holds: str


def claims(results: Results, everybody: Results) -> Iterator[Claim]:
    """`everybody`: where all clients take part in every round."""
    for method in (FULL, LORA):
        accuracies = [each.test for each in results.get((method, 100.0), {}).values()]
        yield at_least(0.55, f"P1 {method} at alpha 100: accuracy", accuracies)
    yield from _gaps(results)
    guard = _values(points(results, SLORA, LORA, SKEWED))
    yield at_least(-4, "P5 SLoRA - LoRA at alpha .03", guard)
    yield from _traffic(results)
    for method in (FFA, SPARSE):
        behind = _values(points(results, LORA, method, 0.1))
        yield at_least(2, f"P8 LoRA - {method} at alpha .1", behind)
    kept = _values(points(everybody, KEPT, LORA, SKEWED))
    yield reported("P8b keep-sparse - LoRA at alpha .03, everybody in every round", kept)
    for name, found in (("", results), (", everybody in every round", everybody)):
        yield from _ninth(found, name)


def points(results: Results, method: str, other: str, alpha: float) -> dict[int, float]:
    """By which a method is better, in each seed that both have."""
    ones, others = results.get((method, alpha), {}), results.get((other, alpha), {})
    both = sorted(ones.keys() & others.keys())
    return {seed: 100 * (ones[seed].test - others[seed].test) for seed in both}


def share(parts: Mapping[int, float], wholes: Mapping[int, float]) -> list[float]:
    """The mean of parts over that of wholes, as the jackknife's values: their interval is its."""
    both = sorted(parts.keys() & wholes.keys())

    def without(left_out: int | None) -> float:
        kept = [seed for seed in both if seed != left_out]
        return sum(parts[seed] for seed in kept) / sum(wholes[seed] for seed in kept)

    if len(both) < 2:
        return [without(None)] if both else []
    whole, count = without(None), len(both)
    return [count * whole - (count - 1) * without(seed) for seed in both]


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Of the mean, by Student's t; None: one value has none."""
    if len(values) < 2:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    mean = statistics.fmean(values)
    return mean - half, mean + half


def _gaps(results: Results) -> Iterator[Claim]:
    even, some, most = (points(results, FULL, LORA, alpha) for alpha in (100.0, 0.1, SKEWED))
    yield at_least(5, "P2 full - LoRA, alpha .03 less 100", _grown(even, most))
    least = min(most.values(), default=None)
    yield at_least(6, "P2 full - LoRA at alpha .03, least of seeds", _values({0: least}))
    for name, less, more in (("100 to .1", even, some), (".1 to .03", some, most)):
        yield at_least(-1, f"P3 full - LoRA grows from alpha {name}", _grown(less, more))
    yield at_most(5, "P4 full - LoRA at alpha 100", _values(even))


def _grown(less: Mapping[int, float], more: Mapping[int, float]) -> list[float]:
    return [more[seed] - less[seed] for seed in sorted(less.keys() & more.keys())]


def _values(found: Mapping[int, float | None]) -> list[float]:
    return [value for value in found.values() if value is not None]


def _traffic(results: Results) -> Iterator[Claim]:
    """Alike for all seeds and splits, so one cell of each method will do."""
    sent = {method: next(iter(found.values())).bytes for (method, _), found in results.items()}
    for most, other in ((0.90, LORA), (0.04, FULL)):
        yield at_most(most, f"P6 bytes, SLoRA over {other}", _ratio(sent, SLORA, other))
    apart = [abs(each - 0.01) for each in _ratio(sent, SPARSE, FULL)]
    yield at_most(HEAD_SHARE, "P7 bytes, sparse over full, less density", apart)


def _ratio(sent: dict[str, int], one: str, other: str) -> list[float]:
    return [sent[one] / sent[other]] if one in sent and other in sent else []


def _ninth(results: Results, name: str) -> Iterator[Claim]:
    """Never a gate."""
    by_seed = points(results, SLORA, LORA, SKEWED)
    better = _values(by_seed)
    found = interval(better)
    if not better:
        holds = "not run"
    elif len(better) < ENOUGH or found is None:
        holds = "undecided: too few seeds"
    elif found[0] > 0:
        holds = "reproduced"
    else:
        holds = "refuted here" if found[1] < 0 else "not reproduced: interval spans 0"
    text = f"P9 SLoRA - LoRA at alpha .03{name}"
    target = f"interval above 0, {ENOUGH} seeds"
    yield Claim(text, len(better), _mean(better), _shown(better), target, holds)
    closes = share(by_seed, points(results, FULL, LORA, SKEWED))
    yield reported(f"P9 share of the gap to full that SLoRA closes at alpha .03{name}", closes)


def at_least(target: float, claim: str, values: Sequence[float]) -> Claim:
    mean = _mean(values)
    holds = "not run" if mean is None else "yes" if mean >= target else "no"
    return Claim(claim, len(values), mean, _shown(values), f">= {target:g}", holds)


def at_most(target: float, claim: str, values: Sequence[float]) -> Claim:
    mean = _mean(values)
    holds = "not run" if mean is None else "yes" if mean <= target else "no"
    return Claim(claim, len(values), mean, _shown(values), f"<= {target:g}", holds)


def reported(claim: str, values: Sequence[float]) -> Claim:
    holds = "reported" if values else "not run"
    return Claim(claim, len(values), _mean(values), _shown(values), "", holds)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _shown(values: Sequence[float]) -> str:
    found = interval(values)
    return f"{found[0]:.3g} to {found[1]:.3g}" if found else ""
