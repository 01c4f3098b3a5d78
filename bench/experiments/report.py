"""What finished cells say, as the tables of bench/README.md."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from bench.experiments import grid
from bench.experiments.cells import Cell, Cells, Outcome
from bench.experiments.claims import claims, interval
from bench.experiments.grid import Results

Table = list[dict[str, Any]]


def report(cells: Cells) -> dict[str, Any]:
    """Tables without rows are left out."""
    found = grid.results(cells)
    tables: dict[str, Table] = {
        "accuracy": [_row(cells, *key, runs) for key, runs in sorted(found.items(), key=_order)],
        "claims": [asdict(each) for each in claims(found, everybody(cells))],
        "rates": list(rates(cells)),
        "ablations": list(ablations(cells)),
    }
    origins = [outcome.origin for _, outcome in cells]
    return {
        "cells": len(origins),
        "commits": ", ".join(sorted({str(origin.get("commit")) for origin in origins})),
        **{name: rows for name, rows in tables.items() if rows},
    }


def everybody(cells: Cells) -> Results:
    found: dict[tuple[str, float], dict[int, Outcome]] = {}
    wanted = set(grid.everybody(cells, {cell.seed for cell, _ in cells}))
    for cell, outcome in cells:
        if cell in wanted:
            found.setdefault((cell.method, cell.alpha), {})[cell.seed] = outcome
    return found


def rates(cells: Cells) -> Iterator[dict[str, Any]]:
    """Every candidate that was tried, and what chose among them."""
    for (method, alpha), _ in sorted(grid.results(cells).items(), key=_order):
        taken = grid.chosen(cells, method, alpha)
        for each, candidate in zip(
            grid.tuning([method], [alpha]), grid.CANDIDATES[method], strict=True
        ):
            if each in cells and len(grid.CANDIDATES[method]) > 1:
                yield {
                    "alpha": alpha,
                    "method": method,
                    "first_rate": each.first_rate or None,
                    "rate": each.learning_rate,
                    "validation": cells[each].validation,
                    "chosen": candidate == taken and grid.tuned(cells, method, alpha),
                }


def ablations(cells: Cells) -> Iterator[dict[str, Any]]:
    """Of the first stage's length and its mask's density, with all else as usual."""
    for name, values in (("first_rounds", grid.FIRST_ROUNDS), ("density", grid.DENSITIES)):
        for method in (grid.SLORA, grid.KEPT, grid.PRIMED):
            taken = grid.chosen(cells, method, grid.SKEWED)
            for value in values:
                runs = [
                    outcome
                    for cell, outcome in cells
                    if cell == _with(grid.cell(method, grid.SKEWED, cell.seed, taken), name, value)
                ]
                if runs:
                    yield {"varied": name, "value": value, "method": method, **_figures(runs)}


def _with(cell: Cell, name: str, value: float) -> Cell:
    return replace(cell, **{name: value})  # type: ignore[arg-type]  # the field's own type


def _row(cells: Cells, method: str, alpha: float, runs: Mapping[int, Outcome]) -> dict[str, Any]:
    first, rate = grid.chosen(cells, method, alpha)
    return {
        "alpha": alpha,
        "method": method,
        **_figures(list(runs.values())),
        "first_rate": first or None,
        "rate": rate,
        "rate_from": "validation" if grid.tuned(cells, method, alpha) else "the pilot",
    }


def _figures(runs: list[Outcome]) -> dict[str, Any]:
    tests = [each.test for each in runs]
    found = interval(tests)
    energies = [each.switch["energy"] for each in runs if "energy" in each.switch]
    return {
        "seeds": len(runs),
        "test": statistics.fmean(tests),
        "interval": f"{found[0]:.3f} to {found[1]:.3f}" if found else "",
        "validation": statistics.fmean(each.validation for each in runs),
        "last_test": statistics.fmean(each.curve[-1].test for each in runs),
        "energy_kept": statistics.fmean(energies) if energies else None,
        "megabytes": runs[0].bytes / 1e6,
        "training_s": statistics.fmean(each.training_seconds for each in runs),
    }


def _order(item: tuple[tuple[str, float], Any]) -> tuple[float, int]:
    (method, alpha), _ = item
    return -alpha, list(grid.CANDIDATES).index(method)
