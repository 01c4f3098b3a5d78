"""Runs a cell: a federation in one process, with the methods that jobs are run with.

What a client is told and what it answers is counted as it stands in memory, which is what travels;
clients that take part, their rows and their order are drawn from the cell's seed.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from bench.experiments.cells import Cell, Measured, Outcome
from bench.experiments.corpus import Row
from bench.experiments.encoder import adapted, load_classifier, minilm, tokenised
from bench.experiments.splits import Parts, parts, split
from services.trainer.partition import Rows

EVERY = 4  # rounds, between measurements
AT_ONCE = 200  # rows that are measured together


@dataclass(frozen=True, slots=True)
class Material:
    """The corpus as a model reads it."""

    corpus: Sequence[Row]
    tokens: Tensor
    labels: Tensor
    names: Sequence[str]
    parts: Parts

    @classmethod
    def of(cls, corpus: Sequence[Row], *, length: int) -> "Material":
        names = sorted({row.label for row in corpus})
        places = {name: place for place, name in enumerate(names)}
        labels = torch.tensor([places[row.label] for row in corpus])
        tokens = tokenised(minilm(), [row.text for row in corpus], length=length)
        return cls(corpus, tokens, labels, names, parts(corpus))


def taking_part(cell: Cell, clients: Sequence[str], round_: int) -> list[str]:
    """By their own generator: alike for all methods of a seed."""
    drawn = np.random.default_rng([cell.seed, round_])
    count = min(cell.sampled, len(clients))
    return sorted(drawn.choice(sorted(clients), count, replace=False).tolist())


def batches(cell: Cell, client: str, rows: Rows, round_: int) -> list[Rows]:
    """One a step; all rows come before any comes again."""
    drawn = np.random.default_rng([cell.seed, round_, crc32(client.encode())])
    size = min(cell.batch, len(rows))
    epochs = -(-cell.steps * size // len(rows))
    order = np.concatenate([drawn.permutation(rows) for _ in range(epochs)])
    return np.split(order[: cell.steps * size], cell.steps)
