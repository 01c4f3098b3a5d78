"""A federation in one process: the trainer's methods on a corpus, with every byte counted."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from bench.experiments import federated, grid
from bench.experiments.cells import Cell, Cells, Outcome
from bench.experiments.corpus import Row
from bench.experiments.lab import Federation, Material, batches, run
from tests.tiny_encoder import INNER, WIDTH, tiny_encoder

LABELS, EACH, RANK = ("games", "mail", "net"), 60, 2
LAYERS, DENSITY = 6, 0.25  # linear layers of one layer of the encoder
HEAD = 3 * WIDTH + 3
WHOLE = 4 * WIDTH**2 + 2 * WIDTH * INNER
FACTORS = RANK * (4 * 2 * WIDTH + 2 * (WIDTH + INNER))
ONLY_B = RANK * (4 * WIDTH + INNER + WIDTH)
SPARSE = 4 * round(DENSITY * WIDTH**2) + 2 * round(DENSITY * WIDTH * INNER)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Labels that a word each gives away."""
    corpus = [
        Row(f"{label}-{n}", f"w{place} w{3 + n % 17}", label, f"team-{n % 2}")
        for place, label in enumerate(LABELS)
        for n in range(EACH)
    ]
    folder = tiny_encoder(tmp_path_factory.mktemp("encoder"))
    return Material.of(corpus, folder=folder, length=6)


def small(method: str, **changes: float) -> Cell:
    usual = grid.cell(method, 1.0, 0, grid.CANDIDATES[method][0])
    cell = replace(
        usual, clients=3, sampled=2, rounds=4, steps=2, batch=4, rank=RANK, layers=1,
        density=DENSITY if usual.density else 0.0, first_rounds=1 if usual.first_rounds else 0,
    )  # fmt: skip
    return replace(cell, **changes)  # type: ignore[arg-type]


# Numbers that travel to a client and back, in each round of a first stage and of the others.
NUMBERS = {
    grid.FULL: (0, (WHOLE, WHOLE)),
    grid.SPARSE: (0, (SPARSE, SPARSE)),
    grid.LORA: (0, (FACTORS, FACTORS)),
    grid.FFA: (0, (ONLY_B, ONLY_B)),
    grid.SLORA: (SPARSE, (FACTORS, FACTORS)),
    grid.PRIMED: (WHOLE, (FACTORS, FACTORS)),
    grid.KEPT: (SPARSE, (FACTORS + SPARSE, FACTORS)),
}


@pytest.mark.parametrize("method", NUMBERS)
def test_what_travels_is_counted_to_the_byte(method: str, material: Material) -> None:
    cell = small(method)
    found = run(cell, material)
    first, (down, up) = NUMBERS[method]
    rest = cell.rounds - cell.first_rounds
    head = cell.rounds * HEAD
    assert found.bytes_down == 4 * 2 * (cell.first_rounds * first + rest * down + head)
    assert found.bytes_up == 4 * 2 * (cell.first_rounds * first + rest * up + head)
    assert ("after" in found.switch) == bool(cell.first_rounds)


def test_the_same_cell_comes_to_the_same(material: Material) -> None:
    def state() -> dict[str, bytes]:
        federation = Federation(small(grid.SLORA), material)
        for _ in range(2):
            federation.after(federation.updates())
        return {name: array.tobytes() for name, array in federation.state.arrays.items()}

    assert state() == state()


def test_it_learns(material: Material) -> None:
    cell = small(grid.LORA, rounds=4, steps=12, batch=16, learning_rate=0.03, alpha=100.0)
    found = run(cell, material)
    assert found.curve[-1].test > 0.9


def test_all_rows_come_before_any_comes_again() -> None:
    rows = np.arange(100, 110)
    cell = small(grid.LORA, steps=5, batch=4)
    order = batches(cell, "client-1", rows, 3)
    assert [len(each) for each in order] == [4] * 5
    assert sorted(np.concatenate(order)[:10].tolist()) == rows.tolist()
    again, later = batches(cell, "client-1", rows, 3), batches(cell, "client-1", rows, 4)
    assert np.array_equal(order, again)
    assert not np.array_equal(order, later)


def test_few_rows_make_small_batches() -> None:
    assert [len(each) for each in batches(small(grid.LORA), "a", np.array([7]), 0)] == [1, 1]


def test_who_was_stopped_goes_on(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    def stopped(cell: Cell, _: Material) -> Outcome:
        if cell.seed == 1 and len(ran) == 1:
            raise KeyboardInterrupt
        ran.append(cell.seed)
        return run(cell, material)

    def work() -> None:
        wanted = (small(grid.FFA, seed=seed, rounds=1) for seed in range(3))
        federated.work(Cells(path), wanted, tell=Console(file=io.StringIO()))

    path = tmp_path / "cells.jsonl"
    monkeypatch.setattr(federated, "run", stopped)
    monkeypatch.setattr(federated, "read_corpus", lambda: material.corpus)
    monkeypatch.setattr(federated, "minilm", lambda: material.folder)
    with pytest.raises(KeyboardInterrupt):
        work()
    ran.append(-1)
    work()
    assert ran == [0, -1, 1, 2]
    assert [cell.seed for cell, _ in Cells(path)] == [0, 1, 2]
