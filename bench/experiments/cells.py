"""Cells of the experiments' grid, each kept in a file as soon as it is finished."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FINISHED = Path(__file__).parent.parent / "results" / "federated.jsonl"
TEAMS = 0.0  # in place of an alpha: clients are the teams that maintain packages


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training from the pretrained encoder on. `alpha`: of the Dirichlet split of labels;
    `first_rate`: the learning rate of a first stage, where the method has one."""

    method: str
    alpha: float
    learning_rate: float
    first_rate: float = 0.0
    seed: int = 0
    clients: int = 20
    sampled: int = 5
    rounds: int = 24
    first_rounds: int = 0
    steps: int = 5
    batch: int = 16
    rank: int = 8
    lora_alpha: float = 16.0
    density: float = 0.0
    layers: int = 3
    tokens: int = 24


@dataclass(frozen=True, slots=True)
class Measured:
    """Accuracies after so many rounds."""

    round: int
    validation: float
    test: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`bytes_down`, `bytes_up`: of all tensors to and from all clients. `switch`: what the handover
    between stages kept, where there is one. `origin`: when, where and by what it was measured."""

    curve: tuple[Measured, ...]
    bytes_down: int
    bytes_up: int
    training_seconds: float
    seconds: float
    switch: dict[str, float] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def validation(self) -> float:
        """The mean of the last three, as all figures are: one alone is noisy."""
        return _mean([each.validation for each in self.curve[-3:]])

    @property
    def test(self) -> float:
        return _mean([each.test for each in self.curve[-3:]])

    @property
    def bytes(self) -> int:
        return self.bytes_down + self.bytes_up


class Cells:
    """Finished ones, in a file of a JSON object a line. Whoever was stopped goes on from there."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError that names file and line."""
        self._path = path
        self._found = dict(_read(path))

    def __iter__(self) -> Iterator[tuple[Cell, Outcome]]:
        return iter(self._found.items())

    def __contains__(self, cell: Cell) -> bool:
        return cell in self._found

    def __getitem__(self, cell: Cell) -> Outcome:
        return self._found[cell]

    def add(self, cell: Cell, outcome: Outcome) -> None:
        """What this returned from survives a crash."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"cell": asdict(cell), **asdict(outcome)}) + "\n"
        with self._path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self._found[cell] = outcome


def _read(path: Path) -> Iterator[tuple[Cell, Outcome]]:
    """A last line without an end is what a crash left, and is cut off."""
    whole = path.read_bytes() if path.exists() else b""
    lines = whole.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        os.truncate(path, len(whole) - len(lines.pop()))
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
            cell = Cell(**found.pop("cell"))
            curve = tuple(Measured(**each) for each in found.pop("curve"))
            yield cell, Outcome(curve=curve, **found)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path.name}:{number}: is no finished cell: {error}") from error


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
