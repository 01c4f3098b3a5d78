"""Runs a cell: a federation in one process, with the methods that jobs are run with.

What a client is told and what it answers is counted as it stands in memory, which is what travels;
clients that take part, their rows and their order are the seed's, alike for all methods.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.experiments import grid
from bench.experiments.cells import Cell, Measured, Outcome
from bench.experiments.corpus import Row
from bench.experiments.encoder import heads, linears, load_classifier, tokenised
from bench.experiments.splits import Parts, parts, split
from bench.results import origin
from services.trainer.federated.config import FederatedConfig
from services.trainer.federated.local.adapted import adapted
from services.trainer.federated.local.training import train
from services.trainer.federated.methods import METHODS, Method
from services.trainer.federated.sampling import sampled
from services.trainer.federated.state import State
from services.trainer.federated.traffic import array_bytes
from services.trainer.federated.words import HEAD, Arrays, Layer, Model, Update
from services.trainer.partition import Rows

EVERY = 4  # rounds, between measurements
AT_ONCE = 200  # rows that are measured together
FIRST = {grid.SLORA: grid.SPARSE, grid.KEPT: grid.SPARSE, grid.PRIMED: grid.FULL}  # stages


@dataclass(frozen=True, slots=True)
class Material:
    """The corpus as a model reads it; `folder`: the model's."""

    folder: Path
    corpus: Sequence[Row]
    tokens: Tensor
    labels: Tensor
    names: Sequence[str]
    parts: Parts

    @classmethod
    def of(cls, corpus: Sequence[Row], *, folder: Path, length: int) -> "Material":
        names = sorted({row.label for row in corpus})
        places = {name: place for place, name in enumerate(names)}
        labels = torch.tensor([places[row.label] for row in corpus])
        tokens = tokenised(folder, [row.text for row in corpus], length=length)
        return cls(folder, corpus, tokens, labels, names, parts(corpus))


def run(cell: Cell, material: Material) -> Outcome:
    begun, training = time.perf_counter(), 0.0
    federation = Federation(cell, material)
    while (state := federation.state).round < cell.rounds:
        started = time.perf_counter()
        updates = federation.updates()
        training += time.perf_counter() - started
        if state.round + 1 == cell.first_rounds:
            federation.before_the_switch(updates)
        federation.after(updates)
    return Outcome(
        curve=tuple(federation.curve), bytes_down=federation.down, bytes_up=federation.up,
        training_seconds=training, seconds=time.perf_counter() - begun,
        switch=federation.switch,
        origin=origin() | {"threads": torch.get_num_threads()},
    )  # fmt: skip


class Federation:
    """A server and its clients between rounds."""

    def __init__(self, cell: Cell, material: Material) -> None:
        self._cell, self._material = cell, material
        self._module = load_classifier(
            material.folder, labels=len(material.names), layers=cell.layers, seed=cell.seed
        )
        self._method = METHODS[cell.method]()
        self._model = Model(
            tuple(Layer(n, e.out_features, e.in_features) for n, e in linears(self._module)),
            {HEAD + name: each.detach().numpy().copy() for name, each in heads(self._module)},
        )
        self.state = self._method.begin(self._model, config_of(cell))
        self._rows = split(material.corpus, alpha=cell.alpha, clients=cell.clients, seed=cell.seed)
        self._kept: dict[str, Arrays] = {}
        self.curve: list[Measured] = []
        self.switch: dict[str, float] = {}
        self.down = self.up = 0

    def updates(self) -> list[Update]:
        number = self.state.round
        there = sampled(self._rows, self._cell.sampled, round=number, seed=self._cell.seed)
        return [self._update(client) for client in there]

    def after(self, updates: Sequence[Update]) -> None:
        self.state = self._method.after(self.state, updates)
        if self.state.round == self._cell.first_rounds:
            self.switch |= {"after": self._accuracy(self._method, self.state).validation}
            if "svd_energy" in self.state.facts:
                self.switch["energy"] = self.state.facts["svd_energy"]
        if self.state.round % EVERY == 0 or self.state.round == self._cell.rounds:
            self.curve.append(self._accuracy(self._method, self.state))

    def before_the_switch(self, updates: Sequence[Update]) -> None:
        """What the first stage came to, if it were all."""
        first = METHODS[FIRST[self._cell.method]]()
        state = first.after(self.state, updates)
        self.switch["before"] = self._accuracy(first, state).validation

    def _update(self, client: str) -> Update:
        plan, told = self._method.told(self.state, client)
        given = {**told, **self._kept.get(client, {})}
        rows = self._rows[client]
        order = batches(self._cell, client, rows, self.state.round)
        done = train(self._module, self._model, plan, given, order, loss_of=self._loss)
        self._kept[client] = done.kept
        self.down += array_bytes(told)
        self.up += array_bytes(done.arrays)
        return Update(client, self.state.round, 1, done.arrays, len(rows), done.metrics)

    def _loss(self, rows: Rows) -> Tensor:
        material = self._material
        return functional.cross_entropy(self._module(material.tokens[rows]), material.labels[rows])

    def _accuracy(self, method: Method, state: State) -> Measured:
        """Of what any client would be told next."""
        plan, told = method.told(state, "")
        own = self._material.parts
        with adapted(self._module, self._model, plan, told), torch.inference_mode():
            return Measured(state.round, self._right(own.validation), self._right(own.test))

    def _right(self, rows: Rows) -> float:
        material, right = self._material, 0
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            said = self._module(material.tokens[part]).argmax(-1)
            right += int((said == material.labels[part]).sum())
        return right / len(rows)


def config_of(cell: Cell) -> FederatedConfig:
    """Where all rounds train weights, their rate is that of a first stage."""
    return FederatedConfig(
        rounds=cell.rounds, rank=cell.rank, alpha=cell.lora_alpha, first_rounds=cell.first_rounds,
        first_learning_rate=cell.first_rate or cell.learning_rate,
        learning_rate=cell.learning_rate, density=cell.density or 0.01, steps=cell.steps,
        batch=cell.batch, seed=cell.seed,
    )  # fmt: skip


def batches(cell: Cell, client: str, rows: Rows, round_: int) -> list[Rows]:
    """One a step; all rows come before any comes again."""
    drawn = np.random.default_rng([cell.seed, round_, crc32(client.encode())])
    size = min(cell.batch, len(rows))
    epochs = -(-cell.steps * size // len(rows))
    order = np.concatenate([drawn.permutation(rows) for _ in range(epochs)])
    return np.split(order[: cell.steps * size], cell.steps)
