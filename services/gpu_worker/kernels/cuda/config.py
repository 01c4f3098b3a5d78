"""How the kernels are launched: a file for each model of GPU, written by `python -m bench.gpu`.

A GPU that nobody has measured has the default, which is a guess.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "configs"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Launch:
    """Of one kernel. Raises ValueError."""

    block: int
    """What it takes at a time: inputs (shrink, multiply), columns (expand) or keys (decode,
    prefill)."""
    warps: int
    stages: int

    def __post_init__(self) -> None:
        if self.block < 16 or self.block & (self.block - 1):
            raise ValueError(f"block must be a power of two and at least 16, not {self.block}")
        if self.warps not in (1, 2, 4, 8, 16):
            raise ValueError(f"warps must be a power of two and at most 16, not {self.warps}")
        if not 1 <= self.stages <= 8:
            raise ValueError(f"stages must be 1 to 8, not {self.stages}")

    @property
    def options(self) -> dict[str, int]:
        """As Triton takes them."""
        return {"num_warps": self.warps, "num_stages": self.stages}


@dataclass(frozen=True, slots=True)
class Config:
    """All of them. Raises ValueError."""

    shrink: Launch
    expand: Launch
    decode: Launch
    prefill: Launch
    multiply: Launch
    parts: int
    """That shrink's sum is split into, of a batch as small as decodes are."""
    split: int
    """Positions of a context that one block takes."""
    queries: int
    """Rows of a prompt that one block takes."""
    alone_rows: int
    """From which on products of torch are faster, if all rows are one adapter's."""
    beside: bool
    """Whether what adapters make of x is computed on a second stream, beside the base's product."""

    def __post_init__(self) -> None:
        if not 1 <= self.parts <= 64:
            raise ValueError(f"parts must be 1 to 64, not {self.parts}")
        if self.split < self.decode.block or self.split % self.decode.block:
            raise ValueError(f"split must be a multiple of decode's block, not {self.split}")
        if self.queries < 16 or self.queries & (self.queries - 1):
            raise ValueError(f"queries must be a power of two, at least 16, not {self.queries}")
        if self.alone_rows < 1:
            raise ValueError(f"alone_rows must be at least 1, not {self.alone_rows}")
        if not isinstance(self.beside, bool):
            raise ValueError(f"beside must be true or false, not {self.beside}")


KERNELS = ("shrink", "expand", "decode", "prefill", "multiply")


def config_for(place: torch.device) -> Config:
    """That of the device's model, if it was measured."""
    if place.type != "cuda":
        return read_config(FOLDER / f"{DEFAULT}.json")
    path = path_of(torch.cuda.get_device_name(place))
    return read_config(path if path.exists() else FOLDER / f"{DEFAULT}.json")


def path_of(name: str) -> Path:
    """Of the file for a GPU of that name."""
    return FOLDER / f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}.json"


def read_config(path: Path) -> Config:
    """Raises ValueError that says what is wrong with it."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return Config(**found | {name: Launch(**found[name]) for name in KERNELS})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is no configuration of kernels: {error}") from error


def write_config(path: Path, config: Config) -> None:
    """As read_config reads it: a kernel a line."""
    lines = [f' "{name}": {json.dumps(value)}' for name, value in asdict(config).items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
