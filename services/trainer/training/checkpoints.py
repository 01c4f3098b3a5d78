"""All that a resumed job needs to go on bit for bit: one safetensors file, whole or not there."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from services.trainer.durable import make_durable


@dataclass(slots=True)
class Progress:
    """`best`: the least loss on what is held out, at step `best_step`; `worse`: measurements since
    that were no better."""

    steps: int = 0
    best: float | None = None
    best_step: int = 0
    worse: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


def write_checkpoint(file: Path, progress: Progress, tensors: dict[str, Tensor]) -> None:
    """With the state of torch's generators. What this returned from survives any crash."""
    tensors = tensors | {"generator.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["generator.cuda"] = torch.cuda.get_rng_state()
    draft = file.with_suffix(".part")
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(flat, draft, metadata={"progress": json.dumps(asdict(progress))})
    make_durable(draft)
    draft.replace(file)
    make_durable(file.parent)


def read_checkpoint(file: Path) -> tuple[Progress, dict[str, Tensor]]:
    """Sets torch's generators back, too."""
    with safe_open(file, framework="pt") as opened:
        said: dict[str, Any] = json.loads(opened.metadata()["progress"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    torch.set_rng_state(tensors.pop("generator.cpu"))
    if "generator.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors.pop("generator.cuda"))
    return Progress(**said), tensors
