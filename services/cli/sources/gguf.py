"""LoRA adapters in GGUF, as llama.cpp's convert_lora_to_gguf.py makes them, as PEFT again."""

import json
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantization
from gguf import GGUFReader

from services.cli.sources.layout import MOST_ENTRIES
from services.cli.tensors import ELEMENTS, StoredTensor, write_tensors
from services.cli.upload import CONFIG, WEIGHTS
from services.core.base_model import BaseModel, Module
from services.core.errors import FailedPrecondition, FieldViolation, InvalidAdapter
from services.gpu_worker.model.gguf_layout import IN_LAYER, rotary_halves

MAGIC = b"GGUF"
ARCHITECTURES = {
    "llama": ("LlamaForCausalLM", "MistralForCausalLM"),
    "qwen2": ("Qwen2ForCausalLM",),
    "qwen3": ("Qwen3ForCausalLM",),
}
PERMUTED = ("llama",)  # rows of queries and keys

_NAME = re.compile(r"blk\.(?P<layer>\d+)\.(?P<part>\w+)\.weight\.lora_(?P<side>[ab])")
_OUTSIDE = re.compile(r"(token_embd|output)\.weight\.lora_[ab]")
_FACTS = (
    "adapter.type",
    "adapter.lora.alpha",
    "adapter.lora.task_name",
    "adapter.lora.prompt_prefix",
)


@dataclass(slots=True)
class _Pair:
    a: Any = None
    b: Any = None


def convert(source: Path, base: BaseModel, to: Path) -> tuple[str, ...]:
    """Writes PEFT's two files into the folder `to`; returns what the maker should know.

    Raises FailedPrecondition, or InvalidAdapter that lists all that cannot be honoured.
    """
    reader = _read(source)
    try:
        facts = {name: entry.contents() for name, entry in reader.fields.items()}
    except (ValueError, IndexError) as error:
        raise FailedPrecondition(f"{source.name} is not a good GGUF file: {error}") from error
    wrong = _wrong_facts(facts, base)
    pairs = _pairs(reader, base, wrong)
    for module, pair in pairs.items():
        wrong += _wrong_pair(module, pair)
    if not pairs and not wrong:
        wrong.append(FieldViolation(source.name, "holds no adapter weights"))
    if wrong:
        raise InvalidAdapter(wrong[:100])
    permuted = facts["general.architecture"] in PERMUTED
    tensors: dict[str, StoredTensor] = {}
    for module, pair in pairs.items():
        heads = module.out_features // base.head_dim if permuted and _rotates(module) else 0
        prefix = f"base_model.model.{module.path}"
        tensors[f"{prefix}.lora_A.weight"] = _stored(pair.a)
        tensors[f"{prefix}.lora_B.weight"] = _stored(pair.b, heads)
    write_tensors(to / WEIGHTS, tensors)
    ranks = {module.path: _shape(pair.a)[0] for module, pair in pairs.items()}
    alpha = float(facts.get("adapter.lora.alpha") or 0)
    (to / CONFIG).write_text(json.dumps(_config(base, ranks, alpha), indent=2, sort_keys=True))
    return _notes(facts, pairs)


def _read(source: Path) -> GGUFReader:
    with source.open("rb") as file:
        head = file.read(24)
    try:
        _, version, tensors, facts = struct.unpack("<4sIQQ", head)
        if version & 0xFFFF == 0:
            raise ValueError("it is for big-endian machines")
        if max(tensors, facts) > MOST_ENTRIES:
            raise ValueError(f"it says to hold more than {MOST_ENTRIES} entries")
        return _StrictReader(source)
    except (ValueError, IndexError, KeyError, RecursionError, struct.error) as error:
        raise FailedPrecondition(f"{source.name} is not a good GGUF file: {error}") from error


class _StrictReader(GGUFReader):
    """What lies behind the end of the file is an error, not nothing; so is a list without end."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        found = super()._get(offset, dtype, count, override_order)
        if len(found) < count:
            raise ValueError("it is cut short")
        return found

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        is_array = raw_type == gguf.GGUFValueType.ARRAY
        if is_array and self._get(orig_offs + 4, np.uint64)[0] > MOST_ENTRIES:
            raise ValueError(f"a list has more than {MOST_ENTRIES} entries")
        return super()._get_field_parts(orig_offs, raw_type)


def _wrong_facts(facts: Mapping[str, Any], base: BaseModel) -> list[FieldViolation]:
    if facts.get("general.type") != "adapter":
        raise FailedPrecondition("it is a model in GGUF, not an adapter: serve it by up --model")
    wrong = []
    if facts.get("adapter.type") != "lora":
        wrong.append(
            FieldViolation("adapter.type", f"must be lora, not {facts.get('adapter.type')}")
        )
    wrong += [
        FieldViolation(name, "is not supported and would not be honoured exactly")
        for name in facts
        if name.startswith("adapter.") and name not in _FACTS
    ]
    if not isinstance(facts.get("adapter.lora.alpha"), float | None):
        wrong.append(FieldViolation("adapter.lora.alpha", "must be a number"))
    kind = str(facts.get("general.architecture"))
    if base.architecture not in ARCHITECTURES.get(kind, ()):
        wrong.append(
            FieldViolation(
                "general.architecture", f"{kind} is not {base.name}'s, {base.architecture}"
            )
        )
    elif kind in PERMUTED and not base.head_dim:
        wrong.append(
            FieldViolation(base.name, "its heads' width is not known here: restart its worker")
        )
    return wrong


def _pairs(reader: GGUFReader, base: BaseModel, wrong: list[FieldViolation]) -> dict[Module, _Pair]:
    modules = {module.path: module for module in base.modules}
    pairs: dict[Module, _Pair] = {}
    for tensor in reader.tensors:
        name = _NAME.fullmatch(tensor.name)
        path = name and f"model.layers.{name['layer']}.{IN_LAYER.get(name['part'], name['part'])}"
        if _OUTSIDE.fullmatch(tensor.name):
            wrong.append(
                FieldViolation(tensor.name, "LoRA on embeddings or output is not supported")
            )
        elif name is None:
            wrong.append(FieldViolation(tensor.name, "is no LoRA tensor that would be honoured"))
        elif path not in modules:
            wrong.append(FieldViolation(tensor.name, f"the base model has no linear {path}"))
        else:
            setattr(pairs.setdefault(modules[path], _Pair()), name["side"], tensor)
    return pairs


def _wrong_pair(module: Module, pair: _Pair) -> list[FieldViolation]:
    problems = []
    for side, tensor in (("a", pair.a), ("b", pair.b)):
        if tensor is None:
            problems.append(f"lora_{side} is missing")
        elif tensor.tensor_type.name not in (*ELEMENTS, "Q8_0"):
            problems.append(f"lora_{side} is {tensor.tensor_type.name}, not F32, F16, BF16 or Q8_0")
    if not problems:
        a, b = _shape(pair.a), _shape(pair.b)
        if a[1:] != (module.in_features,) or b != (module.out_features, a[0]):
            problems.append(
                f"lora_a has shape {list(a)}, lora_b {list(b)}; should have "
                f"[rank, {module.in_features}] and [{module.out_features}, rank]"
            )
    return [FieldViolation(module.path, problem) for problem in problems]


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape))


def _rotates(module: Module) -> bool:
    return module.path.endswith((".q_proj", ".k_proj"))


def _stored(tensor: Any, heads: int = 0) -> StoredTensor:
    """With its rows as Hugging Face orders them; Q8_0 as F32."""
    dtype, data = tensor.tensor_type.name, tensor.data
    if dtype == "Q8_0":
        dtype, data = "F32", gguf.dequantize(data, Quantization.Q8_0)
    bits = np.ascontiguousarray(data).view(ELEMENTS[dtype]).reshape(_shape(tensor))
    return StoredTensor(dtype, rotary_halves(bits, heads) if heads else bits)


def _config(base: BaseModel, ranks: Mapping[str, int], alpha: float) -> dict[str, Any]:
    """llama.cpp scales by alpha / rank; without an alpha, not at all."""
    most = Counter(ranks.values()).most_common()
    rank = max(rank for rank, count in most if count == most[0][1])
    pattern = {path: own for path, own in sorted(ranks.items()) if own != rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "r": rank,
        "lora_alpha": (int(alpha) if alpha.is_integer() else alpha) if alpha else rank,
        "rank_pattern": pattern,
        "alpha_pattern": {} if alpha else pattern,
        "target_modules": _targets(base, ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }


def _targets(base: BaseModel, ranks: Mapping[str, int]) -> list[str]:
    """The names of layers that have it everywhere, the paths of the others."""
    named: set[str] = set()
    for path in ranks:
        name = path.rpartition(".")[2]
        everywhere = all(m.path in ranks for m in base.modules if m.path.endswith(f".{name}"))
        named.add(name if everywhere else path)
    return sorted(named)


def _notes(facts: Mapping[str, Any], pairs: Mapping[Module, _Pair]) -> tuple[str, ...]:
    notes = []
    kinds = [tensor.tensor_type.name for pair in pairs.values() for tensor in (pair.a, pair.b)]
    if count := kinds.count("Q8_0"):
        notes.append(f"{count} of {len(kinds)} tensors were Q8_0; they are F32 now, with its error")
    if prefix := facts.get("adapter.lora.prompt_prefix"):
        notes.append(f"it wants its prompts to start with {prefix!r}, which is up to its callers")
    return tuple(notes)
