"""Llama and its siblings (Mistral, Qwen2, Qwen3): flat over tokens, paged, with adapters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.core.errors import FailedPrecondition
from services.gpu_worker.kernels.device import Device, Layer, Layers, Linear, PagedKv
from services.gpu_worker.kernels.reference import HeadNorms
from services.gpu_worker.model.config import ModelConfig
from services.gpu_worker.model.layout import FUSED, SITES
from services.gpu_worker.model.rope import Rope, build_rope
from services.gpu_worker.model.step import StepInputs


@dataclass(frozen=True, slots=True)
class Llama:
    config: ModelConfig
    device: Device
    embedding: Tensor  # [vocabulary, hidden]
    stack: Sequence[Layer]
    layers: Layers  # these, as the device runs them
    norm: Tensor
    head: Linear
    rope: Rope

    def forward(self, step: StepInputs, caches: Sequence[PagedKv]) -> Tensor:
        """Logits of the sampling rows, [B, vocabulary]."""
        x = self.embedding[step.tokens]
        self.layers(x, caches, step.places, step.layout, step.deltas)
        rows = step.sampling_rows
        if not rows.numel():
            return x.new_empty(0, self.config.vocabulary)
        return self.head(self.device.add_norm(x[rows], None, self.norm, self.config.norm_eps))


def build_llama(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    device: Device,
    rope_divisors: Tensor | None = None,
) -> Llama:
    """From tensors under their Hugging Face names. Raises FailedPrecondition for missing ones."""
    tensors = _Tensors(config, weights, device)
    embedding = tensors.take("model.embed_tokens.weight", config.vocabulary, config.hidden)
    stack = [tensors.layer(i) for i in range(config.layers)]
    tied = config.tied_embeddings or "lm_head.weight" not in weights
    return Llama(
        config=config,
        device=device,
        embedding=embedding,
        stack=stack,
        layers=device.layers(stack, config.norm_eps),
        norm=tensors.take("model.norm.weight", config.hidden),
        head=device.linear(
            embedding if tied else tensors.take("lm_head.weight", config.vocabulary, config.hidden)
        ),
        rope=build_rope(config, device, rope_divisors),
    )


@dataclass(frozen=True, slots=True)
class _Tensors:
    """Those of a model by their Hugging Face names, put together as the device wants them."""

    config: ModelConfig
    weights: Mapping[str, Tensor]
    device: Device

    def layer(self, index: int) -> Layer:
        config, at = self.config, f"model.layers.{index}"
        qkv = {
            "self_attn.q_proj": config.q_width,
            "self_attn.k_proj": config.kv_width,
            "self_attn.v_proj": config.kv_width,
        }
        gate_up = {"mlp.gate_proj": config.intermediate, "mlp.up_proj": config.intermediate}
        o, down = {"self_attn.o_proj": config.hidden}, {"mlp.down_proj": config.hidden}
        mlp_bias = config.mlp_bias
        return Layer(
            qkv=self._joined(index, "qkv", qkv, config.hidden, bias=config.qkv_bias),
            o=self._joined(index, "o", o, config.q_width, bias=config.output_bias),
            gate_up=self._joined(index, "gate_up", gate_up, config.hidden, bias=mlp_bias),
            down=self._joined(index, "down", down, config.intermediate, bias=mlp_bias),
            attention_norm=self.take(f"{at}.input_layernorm.weight", config.hidden),
            mlp_norm=self.take(f"{at}.post_attention_layernorm.weight", config.hidden),
            head_norms=self._head_norms(at) if config.qk_norm else None,
        )

    def take(self, name: str, *shape: int) -> Tensor:
        if name not in self.weights:
            raise FailedPrecondition(f"the weights have no {name}")
        if self.weights[name].shape != shape:
            found = list(self.weights[name].shape)
            raise FailedPrecondition(f"{name} has shape {found}, the config says {list(shape)}")
        return self.weights[name].to(self.device.place, self.device.dtype)

    def _joined(
        self, index: int, fused: str, outputs: Mapping[str, int], width: int, *, bias: bool
    ) -> Linear:
        names = {f"model.layers.{index}.{name}": out for name, out in outputs.items()}
        weight = torch.cat([self.take(f"{name}.weight", out, width) for name, out in names.items()])
        biases = [self.take(f"{name}.bias", out) for name, out in names.items()] if bias else []
        site = index * len(FUSED) + SITES[fused]
        return self.device.linear(weight, torch.cat(biases) if biases else None, site=site)

    def _head_norms(self, at: str) -> HeadNorms:
        width = self.config.head_dim
        q, k = (self.take(f"{at}.self_attn.{n}_norm.weight", width) for n in ("q", "k"))
        return HeadNorms(q, k, self.config.norm_eps)
