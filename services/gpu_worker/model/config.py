"""The shape of a Llama-like network, read from a Hugging Face config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.core.base_model import Module
from services.core.errors import FailedPrecondition

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """kind is "linear" or "llama3"; the last three matter to llama3 only."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    architecture: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tied_embeddings: bool = False

    @property
    def q_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    def modules(self) -> tuple[Module, ...]:
        """Every linear layer inside the decoder layers."""
        shapes = {
            "self_attn.q_proj": ("q", self.hidden, self.q_width),
            "self_attn.k_proj": ("k", self.hidden, self.kv_width),
            "self_attn.v_proj": ("v", self.hidden, self.kv_width),
            "self_attn.o_proj": ("o", self.q_width, self.hidden),
            "mlp.gate_proj": ("gate", self.hidden, self.intermediate),
            "mlp.up_proj": ("up", self.hidden, self.intermediate),
            "mlp.down_proj": ("down", self.intermediate, self.hidden),
        }
        return tuple(
            Module(f"model.layers.{layer}.{path}", f"{layer}.{short}", wide, tall)
            for layer in range(self.layers)
            for path, (short, wide, tall) in shapes.items()
        )


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Raises FailedPrecondition that names what is missing or not supported."""
    architecture = (raw.get("architectures") or ["nothing"])[0]
    if architecture not in ARCHITECTURES:
        raise FailedPrecondition(
            f"architecture {architecture} is not supported; {', '.join(ARCHITECTURES)} are"
        )
    if raw.get("hidden_act", "silu") != "silu":
        raise FailedPrecondition(f"hidden_act {raw['hidden_act']} is not supported")
    try:
        return _read(raw, architecture)
    except KeyError as error:
        raise FailedPrecondition(f"config.json has no {error.args[0]}") from error
    except (TypeError, ValueError) as error:
        raise FailedPrecondition(f"config.json has a wrong value: {error}") from error


def _read(raw: Mapping[str, Any], architecture: str) -> ModelConfig:
    def whole(name: str, default: int | None = None) -> int:
        value = raw[name] if default is None else raw.get(name) or default
        if not isinstance(value, int) or value < 1:
            raise FailedPrecondition(f"config.json has {name} {value!r}, no whole number")
        return value

    heads, hidden, context = (
        whole("num_attention_heads"),
        whole("hidden_size"),
        whole("max_position_embeddings"),
    )
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    qwen = architecture == "Qwen2ForCausalLM"
    bias = bool(raw.get("attention_bias", False))
    config = ModelConfig(
        architecture=architecture,
        hidden=hidden,
        intermediate=whole("intermediate_size"),
        layers=whole("num_hidden_layers"),
        heads=heads,
        kv_heads=whole("num_key_value_heads", heads),
        head_dim=whole("head_dim", max(1, hidden // heads)),
        vocabulary=whole("vocab_size"),
        context=context,
        norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope_theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
        rope_scaling=_rope_scaling(rope, context),
        sliding_window=_sliding_window(raw, architecture),
        qkv_bias=qwen or bias,
        qk_norm=architecture == "Qwen3ForCausalLM",
        output_bias=bias and not qwen,
        mlp_bias=bool(raw.get("mlp_bias", False)),
        tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
    )
    if config.heads % config.kv_heads or config.head_dim % 2:
        raise FailedPrecondition(
            f"{config.heads} heads over {config.kv_heads} of keys, {config.head_dim} wide: "
            "heads must divide evenly and be even"
        )
    return config


def _rope_scaling(rope: Mapping[str, Any], context: int) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    match kind:
        case "default":
            return None
        case "linear":
            return RopeScaling("linear", float(rope["factor"]))
        case "llama3":
            return RopeScaling(
                kind="llama3",
                factor=float(rope["factor"]),
                low_freq_factor=float(rope["low_freq_factor"]),
                high_freq_factor=float(rope["high_freq_factor"]),
                original_context=int(rope.get("original_max_position_embeddings") or context),
            )
        case other:
            raise FailedPrecondition(f"rope scaling {other!r} is not supported")


def _sliding_window(raw: Mapping[str, Any], architecture: str) -> int | None:
    window: int | None = raw.get("sliding_window")
    if architecture == "LlamaForCausalLM" or window is None:
        return None
    if architecture in ("Qwen2ForCausalLM", "Qwen3ForCausalLM"):
        if raw.get("use_sliding_window"):
            raise FailedPrecondition(f"use_sliding_window is not supported for {architecture}")
        return None
    return window
