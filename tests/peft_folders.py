"""PEFT folders of any shape, good and bad, without a model to train."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from services.core.base_model import Module

Tensors = dict[str, Tensor]


def peft_config(**changes: Any) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "lora_dropout": 0.0,
        "bias": "none",
    } | changes


def peft_tensors(
    modules: Sequence[Module], *, names: Sequence[str], rank: int, seed: int
) -> Tensors:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.05

    tensors = {}
    for module in modules:
        if module.path.rsplit(".", 1)[-1] in names:
            prefix = f"base_model.model.{module.path}"
            tensors[f"{prefix}.lora_A.weight"] = random(rank, module.in_features)
            tensors[f"{prefix}.lora_B.weight"] = random(module.out_features, rank)
    return tensors


def write_peft(
    folder: Path, config: Mapping[str, Any] | str, weights: Mapping[str, Tensor] | bytes
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "adapter_config.json").write_text(text)
    data = weights if isinstance(weights, bytes) else save(dict(weights))
    (folder / "adapter_model.safetensors").write_bytes(data)
    return folder
