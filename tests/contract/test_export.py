"""Canonical files of every format as PEFT folders: what peft itself loads from them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save

from services.cli.export import write_peft
from services.core.base_model import Module
from services.core.errors import FailedPrecondition
from services.gpu_worker.model.config import read_config
from tests.references import SHORT, adapt, adapter_configs
from tests.tiny_models import make_reference

KINDS = [torch.float32, torch.float16, torch.bfloat16]


def canonical(adapted: PeftModel, form: int) -> bytes:
    """From peft's own modules; in format 2 every B lies the other way round."""
    tensors = {}
    for name, module in adapted.named_modules():
        if getattr(module, "lora_A", None) is None or "default" not in module.lora_A:
            continue
        layer = name.split(".layers.")[1].split(".")[0]
        site = f"{layer}.{SHORT[name.rsplit('.', 1)[-1]]}"
        b = module.lora_B["default"].weight.detach()
        tensors[f"{site}.A"] = module.lora_A["default"].weight.detach().contiguous()
        tensors[f"{site}.B"] = (b.T if form == 2 else b).contiguous()
    facts = {"base_fingerprint": "f" * 64, "format": form, "scaling": {}}
    return save(tensors, {"lorikeet": json.dumps(facts)})


def modules_of(reference: Any) -> tuple[Module, ...]:
    return read_config(
        reference.config.to_dict() | {"architectures": [type(reference).__name__]}
    ).modules()


@pytest.mark.parametrize("form", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["qv-4", "all-8", "pattern-8"])
def test_peft_loads_what_it_had_saved(
    name: str, kind: torch.dtype, form: int, tmp_path: Path
) -> None:
    reference = make_reference("llama")
    modules = modules_of(reference)
    adapted: Any = adapt(reference, adapter_configs()[name], seed=4)
    if name == "pattern-8":  # types are mixed, as well
        adapted.base_model.model.model.layers[1].to(kind)
    else:
        adapted.to(kind)
    original = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    adapted.save_pretrained(tmp_path / "peft", save_embedding_layers=False)
    source = tmp_path / "canonical"
    source.write_bytes(canonical(adapted, form))
    (tmp_path / "made").mkdir()
    config = (tmp_path / "peft" / "adapter_config.json").read_bytes()
    (tmp_path / "made" / "adapter_config.json").write_bytes(config)
    weights = tmp_path / "made" / "adapter_model.safetensors"
    write_peft(source, modules, weights, tmp_path / "scratch")
    with safe_open(weights, "pt") as file:
        assert set(file.keys()) == original.keys()
        for key, tensor in original.items():
            assert file.get_tensor(key).dtype == tensor.dtype, key
            assert torch.equal(file.get_tensor(key), tensor), key
    assert weights.read_bytes() == (tmp_path / "peft" / weights.name).read_bytes()
    loaded = PeftModel.from_pretrained(
        make_reference("llama"), tmp_path / "made", autocast_adapter_dtype=False
    )
    found = get_peft_model_state_dict(loaded, save_embedding_layers=False)
    assert found.keys() == original.keys()
    for key, tensor in original.items():
        assert torch.equal(found[key].to(tensor.dtype), tensor), key


def test_what_is_not_understood_is_not_guessed_at(tmp_path: Path) -> None:
    reference = make_reference("llama")
    modules = modules_of(reference)
    adapted = adapt(reference, adapter_configs()["qv-4"], seed=4)
    whole = canonical(adapted, 1)
    for data, says in (
        (canonical(adapted, 3), "format 3; update lorikeet"),
        (save({"0.q.A": torch.zeros(2, 2)}), "not in a form known here"),
        (whole[:-1], "is not a good safetensors file"),
        (b"", "is not a good safetensors file"),
    ):
        (tmp_path / "canonical").write_bytes(data)
        with pytest.raises(FailedPrecondition, match=says):
            write_peft(tmp_path / "canonical", modules, tmp_path / "made", tmp_path / "scratch")
    (tmp_path / "canonical").write_bytes(whole)
    with pytest.raises(FailedPrecondition, match="not in a form known here"):
        write_peft(tmp_path / "canonical", modules[8:], tmp_path / "made", tmp_path / "scratch")
    assert not (tmp_path / "made").exists()
