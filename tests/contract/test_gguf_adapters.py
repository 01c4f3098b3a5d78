"""LoRA adapters in GGUF: made by peft, written as llama.cpp does, read back bit for bit."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Quantization
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from services.cli.sources.gguf import convert
from services.core.base_model import BaseModel
from services.core.errors import FailedPrecondition, InvalidAdapter
from services.gpu_worker.model.loading import load_model
from tests.contract.test_gguf import NAMES
from tests.references import EVERY_LINEAR, adapt
from tests.tiny_models import make_reference, save_reference

ARCHITECTURES = {
    "llama": "llama",
    "llama-wide-heads": "llama",
    "llama-blocks": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
KINDS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
Fixed = Callable[[str], tuple[Any, BaseModel]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Fixed:
    """A reference model by family, and its card as a worker makes it."""

    def make(family: str) -> tuple[Any, BaseModel]:
        reference = make_reference(family)
        folder = tmp_path_factory.mktemp(family)
        return reference, load_model(save_reference(reference, folder)).card

    return make


def lora(**changes: Any) -> LoraConfig:
    given: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": EVERY_LINEAR,
        "task_type": "CAUSAL_LM",
    }
    return LoraConfig(**(given | changes))


def as_gguf(
    path: Path, adapted: Any, architecture: str, kind: str, **facts: Any
) -> dict[str, Tensor]:
    """convert_lora_to_gguf.py's rules, with numpy; returns peft's tensors in that type."""
    config = adapted.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", adapted.peft_config["default"].lora_alpha)
    for key, value in facts.items():
        writer.add_string(key.replace("__", "."), value)
    original = {}
    for name, tensor in get_peft_model_state_dict(adapted, save_embedding_layers=False).items():
        stored = tensor.detach().to(KINDS.get(kind, torch.float32)).contiguous()
        original[name] = stored
        module, side = name.removeprefix("base_model.model.model.layers.").split(".lora_")
        layer, _, module = module.partition(".")
        values = stored.view(torch.uint16).numpy() if kind == "BF16" else stored.numpy()
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        count = heads.get(module.removeprefix("self_attn.").removesuffix("_proj"))
        if architecture == "llama" and count and side.startswith("B"):
            shape = values.shape  # LlamaModel.permute, on the rows of B alone
            values = values.reshape(count, 2, shape[0] // count // 2, *shape[1:])
            values = np.ascontiguousarray(values.swapaxes(1, 2)).reshape(shape)
        add(writer, f"blk.{layer}.{NAMES[module]}.weight.lora_{side[0].lower()}", values, kind)
    write(writer)
    return original


def add(writer: Any, name: str, values: "np.ndarray[Any, Any]", kind: str) -> None:
    if kind in ("F32", "F16"):
        writer.add_tensor(name, values)
    elif kind == "BF16":
        writer.add_tensor(name, values.view(np.uint8), raw_dtype=Quantization.BF16)
    elif values.shape[-1] % 32 == 0:
        writer.add_tensor(
            name, gguf.quantize(values, Quantization[kind]), raw_dtype=Quantization[kind]
        )
    else:  # as the converter does for rows that are not whole blocks
        writer.add_tensor(name, values.astype(np.float16))


def write(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def converted(path: Path, card: BaseModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    to = path.with_name("converted")
    to.mkdir(exist_ok=True)
    convert(path, card, to)
    config: dict[str, Any] = json.loads((to / "adapter_config.json").read_text())
    return load_file(to / "adapter_model.safetensors"), config


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_tensor_is_back_bit_for_bit(
    family: str, kind: str, model: Fixed, tmp_path: Path
) -> None:
    reference, card = model(family)
    adapted = adapt(reference, lora(), seed=3)
    original = as_gguf(tmp_path / "a.gguf", adapted, ARCHITECTURES[family], kind)
    found, config = converted(tmp_path / "a.gguf", card)
    same(found, original)
    assert (config["r"], config["lora_alpha"]) == (4, 6)
    assert set(config["target_modules"]) == set(EVERY_LINEAR)
    first = (tmp_path / "converted" / "adapter_model.safetensors").read_bytes()
    converted(tmp_path / "a.gguf", card)
    assert (tmp_path / "converted" / "adapter_model.safetensors").read_bytes() == first


def test_ranks_and_layers_of_their_own_are_kept(model: Fixed, tmp_path: Path) -> None:
    """peft builds the same adapter from the configuration that was written."""
    reference, card = model("llama")
    pattern = {"k_proj": 2, r"layers\.1\.mlp\.down_proj": 8}
    targets = r".*(q_proj|k_proj|layers\.[12]\.mlp\.down_proj)"
    adapted = adapt(reference, lora(rank_pattern=pattern, target_modules=targets), seed=5)
    expected = {
        name: (module.r["default"], module.scaling["default"])
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A")
    }
    original = as_gguf(tmp_path / "a.gguf", adapted, "llama", "F32")
    same(converted(tmp_path / "a.gguf", card)[0], original)
    loaded = PeftModel.from_pretrained(make_reference("llama"), tmp_path / "converted")
    found = {
        name: (module.r["default"], module.scaling["default"])
        for name, module in loaded.named_modules()
        if hasattr(module, "lora_A")
    }
    assert found == expected
    same(get_peft_model_state_dict(loaded, save_embedding_layers=False), original)


def test_without_an_alpha_nothing_is_scaled(model: Fixed, tmp_path: Path) -> None:
    """As in llama.cpp, whose scale is 1 then whatever the rank."""
    reference, card = model("qwen2")
    adapted: Any = adapt(reference, lora(rank_pattern={"v_proj": 2}), seed=5)
    adapted.peft_config["default"].lora_alpha = 0
    as_gguf(tmp_path / "a.gguf", adapted, "qwen2", "F32")
    converted(tmp_path / "a.gguf", card)
    loaded: Any = PeftModel.from_pretrained(make_reference("qwen2"), tmp_path / "converted")
    scalings = {m.scaling["default"] for m in loaded.modules() if hasattr(m, "lora_A")}
    assert scalings == {1.0}


def test_quantised_weights_become_f32_and_it_is_said(model: Fixed, tmp_path: Path) -> None:
    reference, card = model("llama-blocks")
    adapted = adapt(reference, lora(r=32, target_modules=["q_proj"]), seed=3)
    path = tmp_path / "a.gguf"
    original = as_gguf(path, adapted, "llama", "Q8_0", adapter__lora__prompt_prefix="Hi")
    notes = convert(path, card, tmp_path)
    assert "6 of 6 tensors were Q8_0" in notes[0]
    assert "'Hi'" in notes[1]
    found = load_file(tmp_path / "adapter_model.safetensors")
    for name, tensor in original.items():  # half a step off, of a scale in F16
        assert found[name].dtype is torch.float32
        step = tensor.reshape(tensor.shape[0], -1, 32).abs().amax(-1, keepdim=True) / 127
        error = (found[name] - tensor).reshape(tensor.shape[0], -1, 32).abs()
        assert (error <= step * 0.57).all()
    small = adapt(make_reference("llama-blocks"), lora(target_modules=["q_proj"]), seed=3)
    as_gguf(path, small, "llama", "Q8_0")
    assert "3 of 6" in convert(path, card, tmp_path)[0]


def refused(path: Path, card: BaseModel) -> str:
    with pytest.raises((InvalidAdapter, FailedPrecondition)) as error:
        convert(path, card, path.parent)
    assert not (path.parent / "adapter_config.json").exists()
    return error.value.message


def test_all_that_is_not_honoured_is_named(model: Fixed, tmp_path: Path) -> None:
    _, card = model("llama")
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "dora")
    writer.add_array("adapter.alora.invocation_tokens", [1, 2])
    for name, shape in {
        "token_embd.weight.lora_a": (48, 4),
        "output.weight.lora_b": (120, 4),
        "blk.0.attn_norm.weight": (48,),
        "blk.0.ffn_gate_inp.weight.lora_a": (4, 48),
        "blk.7.attn_q.weight.lora_a": (4, 48),
        "blk.0.attn_q.weight.lora_a": (4, 48),
        "blk.0.attn_v.weight.lora_a": (4, 48),
        "blk.0.attn_v.weight.lora_b": (16, 5),
        "blk.1.attn_v.weight.lora_a": (4,),
        "blk.1.attn_v.weight.lora_b": (16, 4),
    }.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    for side, shape in (("a", (32, 80)), ("b", (48, 32))):
        writer.add_tensor(
            f"blk.2.ffn_down.weight.lora_{side}",
            np.zeros(shape, np.float64),
        )
    write(writer)
    said = refused(path, card)
    for part in (
        "adapter.type: must be lora, not dora",
        "adapter.alora.invocation_tokens: is not supported",
        "general.architecture: qwen2 is not",
        "token_embd.weight.lora_a: LoRA on embeddings or output is not supported",
        "output.weight.lora_b: LoRA on embeddings or output is not supported",
        "blk.0.attn_norm.weight: is no LoRA tensor",
        "the base model has no linear model.layers.0.ffn_gate_inp",
        "the base model has no linear model.layers.7.self_attn.q_proj",
        "model.layers.0.self_attn.q_proj: lora_b is missing",
        "model.layers.0.self_attn.v_proj: lora_a has shape [4, 48], lora_b [16, 5]",
        "model.layers.1.self_attn.v_proj: lora_a has shape [4]",
        "model.layers.2.mlp.down_proj: lora_a is F64, not F32, F16, BF16 or Q8_0",
    ):
        assert part in said


def test_a_model_is_no_adapter_and_heads_must_be_known(model: Fixed, tmp_path: Path) -> None:
    reference, card = model("llama")
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    write(writer)
    assert "a model in GGUF, not an adapter" in refused(tmp_path / "a.gguf", card)
    as_gguf(tmp_path / "b.gguf", adapt(reference, lora(), seed=1), "llama", "F32")
    old = BaseModel(**{f: getattr(card, f) for f in card.__slots__} | {"head_dim": 0})
    assert "heads' width is not known" in refused(tmp_path / "b.gguf", old)


def test_a_file_that_is_cut_short_or_lies_is_refused(model: Fixed, tmp_path: Path) -> None:
    reference, card = model("qwen2")
    path = tmp_path / "a.gguf"
    as_gguf(path, adapt(reference, lora(), seed=1), "qwen2", "F16")
    whole = path.read_bytes()
    (tmp_path / "x").mkdir()
    path = tmp_path / "x" / "a.gguf"
    endless = whole[:24] + struct.pack("<Q1sIIQ", 1, b"k", 9, 0, 1 << 60) + whole[24:]
    for data in (
        whole[:20],
        whole[:100],
        whole[: len(whole) // 2],
        whole[:-200],
        b"GGUF" + struct.pack(">I", 3) + whole[8:],
        whole[:8] + struct.pack("<Q", 1 << 60) + whole[16:],
        whole[:16] + struct.pack("<Q", 1 << 60) + whole[24:],
        endless,
    ):
        path.write_bytes(data)
        assert "a.gguf is not a good GGUF file" in refused(path, card)
