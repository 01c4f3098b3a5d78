"""Small random models of every family that is served, as transformers writes them to a folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers import PreTrainedModel as Reference

from services.core.base_model import BaseModel
from tests.cards import CARD

VOCABULARY = 120
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 10000.0,
}
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def configs() -> dict[str, Any]:
    return {
        "llama": LlamaConfig(**_SHAPE),
        "llama-rope3": LlamaConfig(**_SHAPE, rope_parameters=LLAMA3, tie_word_embeddings=True),
        "llama-linear": LlamaConfig(
            **_SHAPE,
            rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
            attention_bias=True,
            mlp_bias=True,
        ),
        "llama-wide-heads": LlamaConfig(**(_SHAPE | {"num_attention_heads": 4}), head_dim=16),
        "llama-blocks": LlamaConfig(
            **(_SHAPE | {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4})
        ),
        "qwen2": Qwen2Config(**_SHAPE),
        "qwen3": Qwen3Config(**_SHAPE, head_dim=16),
        "mistral": MistralConfig(**_SHAPE, sliding_window=8),
    }


def make_reference(name: str, *, seed: int = 0) -> Reference:
    return reference_of(configs()[name], seed=seed)


def reference_of(config: Any, *, seed: int = 0) -> Reference:
    """With biases and norms that are not the ones and zeros they would start as."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("norm.weight"):
            parameter.data.uniform_(0.5, 1.5)
        else:
            parameter.data.normal_(std=0.1)
    return model


def save_reference(model: Reference, folder: Path, **how: Any) -> Path:
    model.save_pretrained(folder, **how)
    words = {f"w{index}": index for index in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def tiny_card() -> BaseModel:
    """Of a model that nobody runs: a context of 100 tokens, a vocabulary of 50."""
    return replace(CARD, context_tokens=100, vocabulary_tokens=50)
