"""The result of a federation as a PEFT folder: without torch or peft."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from services.trainer.durable import make_durable
from services.trainer.federated.words import Array, Factors
from services.trainer.federation import TookPart
from services.trainer.publication import PARTICIPANTS

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapter(
    folder: Path,
    factors: Mapping[str, Factors],
    *,
    base_name: str,
    participants: Mapping[str, TookPart],
) -> None:
    """What this returned from survives any crash."""
    folder.mkdir(parents=True, exist_ok=True)
    rank = max(each.a.shape[0] for each in factors.values())
    scaling = next(iter(factors.values())).scaling
    tensors: dict[str, Any] = {}
    for layer in sorted(factors):
        for name, array in _of_rank(factors[layer], rank, scaling).items():
            tensors[f"base_model.model.{layer}.{name}.weight"] = array
    save_file(tensors, folder / WEIGHTS)
    config = _config(list(factors), rank, scaling * rank, base_name)
    (folder / CONFIG).write_text(json.dumps(config, indent=1))
    took_part = [asdict(participants[name]) for name in sorted(participants)]
    (folder / PARTICIPANTS).write_text(json.dumps(took_part, indent=1))
    for path in (*folder.iterdir(), folder, folder.parent):
        make_durable(path)


def _of_rank(factors: Factors, rank: int, scaling: float) -> dict[str, Array]:
    """The same product, of this rank and scaling: zeroes change nothing."""
    missing = rank - factors.a.shape[0]
    share = np.float32(factors.scaling / scaling)
    return {
        "lora_A": np.ascontiguousarray(np.pad(factors.a, ((0, missing), (0, 0)))),
        "lora_B": np.ascontiguousarray(np.pad(factors.b * share, ((0, 0), (0, missing)))),
    }


def _config(layers: list[str], rank: int, alpha: float, base_name: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(layers),
    }
