"""Which cells there are: methods, splits, seeds, and the learning rates that each is given.

A rate is chosen for each method and split by accuracy on validation rows with seed 0, which no test
row is among. Until all of a method's candidates have been tried it has the first of them, which
served it in a pilot on this corpus (where heads had a rate of their own, 3e-3; here a head has its
method's).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from bench.experiments.cells import Cell, Cells, Outcome

ALPHAS = (100.0, 0.1, 0.03)
SKEWED = 0.03
FIRST_ROUNDS = (3, 6, 12, 18)
DENSITIES = (0.005, 0.01, 0.05, 0.1)
FULL, LORA, SLORA = "full", "fedit", "slora"
SPARSE, FFA, PRIMED, KEPT = "sparse", "ffa", "primed", "keep-sparse"
METHODS = (FULL, LORA, SLORA, SPARSE, FFA, PRIMED, KEPT)

Rates = tuple[float, float]  # of a first stage, or 0; of all other rounds

_TWO_STAGES: Sequence[Rates] = (
    *((3e-3, 3e-3), (1e-2, 3e-3), (3e-3, 1e-3), (1e-2, 1e-3)),
    *((3e-2, 3e-3), (3e-2, 1e-3)),  # 1e-2 was the best of a first stage, at the edge of the grid
)
CANDIDATES: Mapping[str, Sequence[Rates]] = {
    FULL: ((0, 3e-4), (0, 1e-4), (0, 1e-3)),
    LORA: ((0, 3e-3), (0, 1e-3), (0, 5e-3)),
    SLORA: _TWO_STAGES,
    SPARSE: ((0, 3e-3), (0, 1e-3), (0, 1e-2)),
    FFA: ((0, 3e-3), (0, 1e-3), (0, 1e-2)),
    PRIMED: ((3e-4, 3e-3), (3e-4, 1e-3), (1e-3, 3e-3), (1e-3, 1e-3)),
    KEPT: _TWO_STAGES,
}
_CHANGED: Mapping[str, Mapping[str, float]] = {
    SLORA: {"first_rounds": 6, "density": 0.01},
    KEPT: {"first_rounds": 6, "density": 0.01},
    SPARSE: {"density": 0.01},
    PRIMED: {"first_rounds": 6},
}
# Of all clients in every round, as in the pilot's second configuration.
EVERYBODY: Mapping[str, int] = {"clients": 10, "sampled": 10, "rounds": 16, "steps": 4}

Results = Mapping[tuple[str, float], Mapping[int, Outcome]]  # by method and alpha; by seed


def cell(method: str, alpha: float, seed: int, rates: Rates) -> Cell:
    changes: Mapping[str, float] = _CHANGED.get(method, {})
    first, rate = rates
    made = Cell(method=method, alpha=alpha, learning_rate=rate, first_rate=first, seed=seed)
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields' own types


def tuning(methods: Iterable[str], alphas: Sequence[float]) -> Iterator[Cell]:
    for method in methods:
        for alpha in alphas:
            yield from (cell(method, alpha, 0, rates) for rates in CANDIDATES[method])


def tuned(cells: Cells, method: str, alpha: float) -> bool:
    return all(each in cells for each in tuning([method], [alpha]))


def chosen(cells: Cells, method: str, alpha: float) -> Rates:
    candidates = CANDIDATES[method]
    if not tuned(cells, method, alpha):
        return candidates[0]
    return max(candidates, key=lambda rates: cells[cell(method, alpha, 0, rates)].validation)


def compared(
    cells: Cells, methods: Sequence[str], alphas: Sequence[float], seeds: Iterable[int]
) -> Iterator[Cell]:
    """Seed by seed, so that what is finished compares."""
    for seed in seeds:
        for alpha in alphas:
            for method in methods:
                yield cell(method, alpha, seed, chosen(cells, method, alpha))


def stages(cells: Cells, seeds: Iterable[int]) -> Iterator[Cell]:
    """Lengths of the first stage, of the same rounds in all."""
    for seed in seeds:
        for method in (SLORA, KEPT, PRIMED):
            base = cell(method, SKEWED, seed, chosen(cells, method, SKEWED))
            yield from (replace(base, first_rounds=rounds) for rounds in FIRST_ROUNDS)


def densities(cells: Cells, seeds: Iterable[int]) -> Iterator[Cell]:
    for seed in seeds:
        for method in (SLORA, KEPT):
            base = cell(method, SKEWED, seed, chosen(cells, method, SKEWED))
            yield from (replace(base, density=density) for density in DENSITIES)


def everybody(cells: Cells, seeds: Iterable[int]) -> Iterator[Cell]:
    for seed in seeds:
        for method in (FULL, LORA, SLORA, KEPT):
            base = cell(method, SKEWED, seed, chosen(cells, method, SKEWED))
            first = 4 if base.first_rounds else 0
            yield replace(base, **EVERYBODY, first_rounds=first)  # type: ignore[arg-type]


def results(cells: Cells) -> Results:
    """Finished cells at the rates that are chosen now."""
    found: dict[tuple[str, float], dict[int, Outcome]] = {}
    for each, outcome in cells:
        rates = chosen(cells, each.method, each.alpha)
        if each == cell(each.method, each.alpha, each.seed, rates):
            found.setdefault((each.method, each.alpha), {})[each.seed] = outcome
    return found
