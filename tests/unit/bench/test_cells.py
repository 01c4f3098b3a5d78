"""Cells of the federated experiments: kept when they are finished, never twice, and chosen among by
what no test row said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.experiments import grid
from bench.experiments.cells import Cells, Measured, Outcome
from bench.experiments.corpus import read_corpus
from bench.experiments.splits import TEST_EACH, VALIDATION_EACH, parts

CELL = grid.cell(grid.SLORA, 0.03, 1, (3e-3, 1e-3))


def outcome(*, validation: float = 0.5, test: float = 0.5, sent: int = 10) -> Outcome:
    curve = tuple(Measured(at, validation, test) for at in (4, 8, 12))
    return Outcome(
        curve=curve, bytes_down=sent, bytes_up=sent, training_seconds=1.0, seconds=2.0,
        switch={"energy": 0.1}, origin={"commit": "abc"},
    )  # fmt: skip


def test_what_is_finished_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    Cells(path).add(CELL, outcome())
    Cells(path).add(replace(CELL, seed=2), outcome(test=0.7))
    found = Cells(path)
    assert dict(found) == {CELL: outcome(), replace(CELL, seed=2): outcome(test=0.7)}


def test_what_a_crash_left_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    Cells(path).add(CELL, outcome())
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    cells = Cells(path)
    cells.add(replace(CELL, seed=2), outcome())
    assert [cell.seed for cell, _ in Cells(path)] == [1, 2]


@pytest.mark.parametrize("line", ["{", "[]", "{}", json.dumps({"cell": {"method": "full"}})])
def test_a_line_that_is_no_cell_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    Cells(path).add(CELL, outcome())
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"cells.jsonl:2: is no finished cell"):
        Cells(path)


def test_the_figure_is_the_mean_of_the_last_three() -> None:
    curve = [Measured(at, at / 100, at / 10) for at in range(6)]
    found = replace(outcome(), curve=tuple(curve))
    assert found.test == pytest.approx(0.4)
    assert found.validation == pytest.approx(0.04)


def test_a_rate_is_chosen_by_validation_when_all_were_tried(tmp_path: Path) -> None:
    cells = Cells(tmp_path / "cells.jsonl")
    candidates = list(grid.tuning([grid.LORA], [0.1]))
    *others, last = candidates
    for each in others:
        cells.add(each, outcome(validation=0.5, test=0.9))
    assert grid.chosen(cells, grid.LORA, 0.1) == grid.CANDIDATES[grid.LORA][0]
    assert not grid.tuned(cells, grid.LORA, 0.1)
    cells.add(last, outcome(validation=0.6, test=0.1))
    assert grid.tuned(cells, grid.LORA, 0.1)
    assert grid.chosen(cells, grid.LORA, 0.1) == grid.CANDIDATES[grid.LORA][-1]
    assert grid.chosen(cells, grid.LORA, 0.03) == grid.CANDIDATES[grid.LORA][0]


def test_results_are_of_the_chosen_rates_alone(tmp_path: Path) -> None:
    cells = Cells(tmp_path / "cells.jsonl")
    for each in grid.tuning([grid.FULL], [0.1]):
        cells.add(each, outcome(validation=each.learning_rate))
    usual = grid.cell(grid.FULL, 0.1, 5, grid.chosen(cells, grid.FULL, 0.1))
    cells.add(usual, outcome())
    cells.add(replace(usual, rounds=3), outcome())
    found = grid.results(cells)
    assert {key: sorted(runs) for key, runs in found.items()} == {(grid.FULL, 0.1): [0, 5]}


def test_nobody_learns_from_what_is_measured() -> None:
    corpus = read_corpus()
    found = parts(corpus)
    apart = [set(each.tolist()) for each in (found.learnt, found.validation, found.test)]
    assert [len(each) for each in apart] == [3053, 20 * VALIDATION_EACH, 20 * TEST_EACH]
    assert len(set.union(*apart)) == len(corpus)
