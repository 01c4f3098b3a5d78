"""Federated fine-tuning on skewed splits: python -m bench.experiments.federated PART...

An encoder learns to tell Debian's sections by package descriptions, from clients that each have few
of them. Parts, in the order given: subset (LoRA against full fine-tuning on an even and a skewed
split, seed 0), tuning (learning rates by validation), alphas (all methods, splits and seeds),
stages, densities (ablations of the first stage), everybody (all clients in every round), report
(only the tables and plots of what is finished). Stop it when you like: a cell that is finished is
in bench/results/federated.jsonl and is not run again.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from bench.experiments import grid, plots
from bench.experiments.cells import FINISHED, Cell, Cells
from bench.experiments.corpus import read_corpus
from bench.experiments.encoder import minilm
from bench.experiments.lab import Material, run
from bench.experiments.report import report
from bench.results import save

Part = Callable[[Cells, argparse.Namespace], Iterator[Cell]]
PARTS: Mapping[str, Part] = {
    "subset": lambda cells, _: grid.compared(
        cells, (grid.FULL, grid.LORA), (100.0, grid.SKEWED), range(1)
    ),
    "tuning": lambda _, asked: grid.tuning(asked.methods, asked.alphas),
    "alphas": lambda cells, asked: grid.compared(cells, asked.methods, asked.alphas, asked.seeds),
    "stages": lambda cells, asked: grid.stages(cells, asked.seeds),
    "densities": lambda cells, asked: grid.densities(cells, asked.seeds),
    "everybody": lambda cells, asked: grid.everybody(cells, asked.seeds),
    "report": lambda _, __: iter(()),
}


def work(cells: Cells, wanted: Iterator[Cell], *, tell: Console) -> None:
    """One cell at a time."""
    materials: dict[int, Material] = {}
    for cell in wanted:
        if cell in cells:
            continue
        tell.print(f"{cell.method}, alpha {cell.alpha:g}, seed {cell.seed}, "
                   f"rate {cell.learning_rate:g}", highlight=False)  # fmt: skip
        if cell.tokens not in materials:
            materials[cell.tokens] = Material.of(read_corpus(), folder=minilm(), length=cell.tokens)
        outcome = run(cell, materials[cell.tokens])
        cells.add(cell, outcome)
        tell.print(f"  validation {outcome.validation:.3f}, test {outcome.test:.3f}, "
                   f"{outcome.bytes / 1e6:.0f} MB, {outcome.seconds:.0f} s",
                   highlight=False)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m bench.experiments.federated",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--methods", nargs="+", choices=grid.CANDIDATES, default=grid.METHODS)
    parser.add_argument("--alphas", nargs="+", type=float, default=grid.ALPHAS)
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cells", type=Path, default=FINISHED)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    cells = Cells(asked.cells)
    for part in asked.parts:
        work(cells, PARTS[part](cells, asked), tell=Console())
    if asked.cells == FINISHED and any(True for _ in cells):
        save("federated", report(cells))
        plots.main()


if __name__ == "__main__":
    main()
