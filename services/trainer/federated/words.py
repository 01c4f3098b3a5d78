"""What federated training speaks of.

Arrays are float32 and have names; whatever sums them takes names and clients in their order, so
that the same updates give the same bytes. Of layer l: "l.A" [rank, columns] and "l.B" [rows, rank]
are factors, "l.D" [rows, columns] is what is added to the frozen weights, "l.S" [values] is that on
a mask alone; "head.x" is trained whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]
Arrays = Mapping[str, Array]

HEAD = "head."


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer that is adapted: y = W x, W [rows, columns]."""

    name: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Model:
    """`head`: its arrays at the beginning, by names that begin with HEAD; may be empty."""

    layers: tuple[Layer, ...]
    head: Arrays = field(default_factory=dict)


class Kind(Enum):
    """What a client trains."""

    FULL = "full"  # D
    SPARSE = "sparse"  # S, on the mask that `seed` gives
    LORA = "lora"  # A and B; S, if it comes, is added and stays as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a client is to do in a round. `seed`: of masks; `alpha / rank` scales B A."""

    kind: Kind
    rank: int = 0
    alpha: float = 0.0
    seed: int = 0
    density: float = 0.0
    freeze_a: bool = False
    keep_b: bool = False  # B is the client's own, and stays with it
    proximal_mu: float = 0.0
    learning_rate: float = 1e-3
    steps: int = 10
    batch: int = 16


@dataclass(frozen=True, slots=True)
class Update:
    """What a client sends back; `attempt` counts its tries at a round, `base` is the fingerprint of
    the model that it trained on."""

    client: str
    round: int
    attempt: int
    arrays: Arrays
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    base: str = ""


@dataclass(frozen=True, slots=True)
class Factors:
    """scaling B A is added to W: a [rank, columns], b [rows, rank]."""

    a: Array
    b: Array
    scaling: float

    @property
    def delta(self) -> Array:
        return np.float32(self.scaling) * (self.b @ self.a)
