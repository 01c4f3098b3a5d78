"""GGUF files: weights de-quantised and renamed, configuration and tokenizer translated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType as Quantization
from gguf import GGUFReader, dequantize
from torch import Tensor

from services.core.errors import FailedPrecondition
from services.gpu_worker.model.gguf_layout import IN_LAYER, rotary_halves
from services.gpu_worker.model.gguf_tokenizer import Vocabulary, build_tokenizer

SUPPORTED = frozenset(
    Quantization[name]
    for name in [
        "F32",
        "F16",
        "BF16",
        "Q8_0",
        "Q4_0",
        "Q4_1",
        "Q5_0",
        "Q5_1",
        "Q4_K",
        "Q5_K",
        "Q6_K",
    ]
)
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}

_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


@dataclass(frozen=True, slots=True)
class GgufModel:
    """A GGUF file in Hugging Face's words."""

    name: str
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor] = field(repr=False)
    rope_divisors: Tensor | None
    tokenizer_json: bytes = field(repr=False)
    chat_template: str
    special_tokens: Mapping[str, str]
    end_tokens: tuple[int, ...]


class _PlainReader(GGUFReader):
    """Every view of a memory map is set up by Python, of a plain array by C: seconds, with words by
    the ten thousand."""

    @property  # type: ignore[override]  # it is only read from
    def data(self) -> np.ndarray:
        return self._plain

    @data.setter
    def data(self, mapped: np.ndarray) -> None:
        self._plain = mapped.view(np.ndarray)


def read_gguf(path: Path) -> GgufModel:
    """Raises FailedPrecondition that names what is not supported."""
    try:
        reader = _PlainReader(path)
    except (ValueError, IndexError, OSError) as error:
        raise FailedPrecondition(f"{path.name} is not a readable GGUF file: {error}") from error
    facts = {name: entry.contents() for name, entry in reader.fields.items()}
    config = _config(facts)
    weights = _weights(reader, config)
    config["tie_word_embeddings"] = "lm_head.weight" not in weights
    divisors = weights.pop("rope_freqs.weight", None)
    vocabulary = Vocabulary.of(facts)
    return GgufModel(
        name=str(facts.get("general.name") or ""),
        config=config,
        weights=weights,
        rope_divisors=divisors,
        tokenizer_json=build_tokenizer(vocabulary).to_str().encode(),
        chat_template=str(facts.get("tokenizer.chat_template") or ""),
        special_tokens=vocabulary.special_tokens,
        end_tokens=vocabulary.end_tokens,
    )


def _config(facts: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(facts.get("general.architecture"))
    if kind not in ARCHITECTURES:
        raise FailedPrecondition(f"GGUF architecture {kind} is not supported")

    def fact(name: str, default: Any = None) -> Any:
        value = facts.get(f"{kind}.{name}", default)
        if value is None:
            raise FailedPrecondition(f"the GGUF file has no {kind}.{name}")
        return value

    heads = fact("attention.head_count")
    hidden = fact("embedding_length")
    rope: dict[str, Any] = {"rope_theta": fact("rope.freq_base", 10000.0)}
    scaling = fact("rope.scaling.type", "none")
    if scaling != "none":
        rope |= {"rope_type": scaling, "factor": fact("rope.scaling.factor")}
    return {
        "architectures": [ARCHITECTURES[kind]],
        "hidden_size": hidden,
        "intermediate_size": fact("feed_forward_length"),
        "num_hidden_layers": fact("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fact("attention.head_count_kv", heads),
        "head_dim": fact("attention.key_length", hidden // heads),
        "vocab_size": len(facts.get("tokenizer.ggml.tokens", ())) or fact("vocab_size"),
        "max_position_embeddings": fact("context_length"),
        "rms_norm_eps": fact("attention.layer_norm_rms_epsilon"),
        "rope_parameters": rope,
    }


def _weights(reader: GGUFReader, config: Mapping[str, Any]) -> dict[str, Tensor]:
    weights = {}
    for tensor in reader.tensors:
        if tensor.tensor_type not in SUPPORTED:
            kind = tensor.tensor_type.name
            raise FailedPrecondition(f"{tensor.name} is {kind}, a quantisation not supported")
        values = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        if config["architectures"][0] == "LlamaForCausalLM":
            values = _unpermuted(tensor.name, values, config)
        weights[_renamed(tensor.name)] = torch.from_numpy(values)
    return weights


def _unpermuted(name: str, values: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config["num_key_value_heads"],
    }.get(name.split(".")[-2] if "." in name else "")
    return values if heads is None else rotary_halves(values, heads)


def _renamed(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem.startswith("blk."):
        _, layer, part = stem.split(".", 2)
        if part in IN_LAYER:
            return f"model.layers.{layer}.{IN_LAYER[part]}.{kind}"
    elif stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    elif name == "rope_freqs.weight":
        return name
    raise FailedPrecondition(f"the tensor {name} is not part of a Llama")
