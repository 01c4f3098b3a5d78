"""Llama and its siblings (Mistral, Qwen2, Qwen3): flat over tokens, paged, with adapters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from services.core.errors import FailedPrecondition
from services.gpu_worker.kernels.device import Device, Linear
from services.gpu_worker.model.arena import PagedKv
from services.gpu_worker.model.config import ModelConfig
from services.gpu_worker.model.packing import FUSED, SITES
from services.gpu_worker.model.rope import Rope, build_rope, rotate
from services.gpu_worker.model.step import StepInputs


@dataclass(frozen=True, slots=True)
class Layer:
    qkv: Linear
    o: Linear
    gate_up: Linear
    down: Linear
    attention_norm: Tensor
    mlp_norm: Tensor
    q_norm: Tensor | None = None  # [head_dim], Qwen3's
    k_norm: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Llama:
    config: ModelConfig
    device: Device
    embedding: Tensor  # [vocabulary, hidden]
    layers: Sequence[Layer]
    norm: Tensor
    head: Linear
    rope: Rope

    def forward(self, step: StepInputs, caches: Sequence[PagedKv]) -> Tensor:
        """Logits of the sampling rows, [B, vocabulary]."""
        x = self.embedding[step.tokens]
        rotation = self.rope.at(step.positions)
        for layer, cache in zip(self.layers, caches, strict=True):
            normed = self._norm(x, layer.attention_norm)
            x = x + self._attend(layer, normed, step, cache=cache, rotation=rotation)
            x = x + self._mlp(layer, self._norm(x, layer.mlp_norm), step)
        if not step.sampling_rows.numel():
            return x.new_empty(0, self.config.vocabulary)
        return self.head(self._norm(x[step.sampling_rows], self.norm))

    def _attend(
        self,
        layer: Layer,
        x: Tensor,
        step: StepInputs,
        *,
        cache: PagedKv,
        rotation: tuple[Tensor, Tensor],
    ) -> Tensor:
        config = self.config
        qkv = layer.qkv(x, step.deltas)
        q, k, v = qkv.split((config.q_width, config.kv_width, config.kv_width), dim=-1)
        heads = (-1, config.head_dim)
        q, k = q.unflatten(-1, heads), k.unflatten(-1, heads)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)
        q = rotate(q, *rotation)
        v = v.unflatten(-1, heads)
        cache.write(rotate(k, *rotation), v, pages=step.pages, offsets=step.offsets)
        seen = self.device.attention(q, cache.keys, cache.values, step.layout)
        return layer.o(seen.flatten(1), step.deltas)

    def _mlp(self, layer: Layer, x: Tensor, step: StepInputs) -> Tensor:
        gate, up = layer.gate_up(x, step.deltas).chunk(2, -1)
        return layer.down(silu(gate) * up, step.deltas)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, (x.shape[-1],), weight, self.config.norm_eps)


def build_llama(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    device: Device,
    rope_divisors: Tensor | None = None,
) -> Llama:
    """From tensors under their Hugging Face names. Raises FailedPrecondition for missing ones."""

    def take(name: str, *shape: int) -> Tensor:
        if name not in weights:
            raise FailedPrecondition(f"the weights have no {name}")
        if weights[name].shape != shape:
            found = list(weights[name].shape)
            raise FailedPrecondition(f"{name} has shape {found}, the config says {list(shape)}")
        return weights[name].to(device.place, device.dtype)

    def joined(
        index: int, fused: str, outputs: Mapping[str, int], width: int, *, bias: bool
    ) -> Linear:
        at = f"model.layers.{index}"
        weight = torch.cat([take(f"{at}.{n}.weight", out, width) for n, out in outputs.items()])
        biases = [take(f"{at}.{n}.bias", out) for n, out in outputs.items()] if bias else []
        site = index * len(FUSED) + SITES[fused]
        return device.linear(weight, torch.cat(biases) if biases else None, site=site)

    def head_norm(name: str) -> Tensor | None:
        return take(name, config.head_dim) if config.qk_norm else None

    def layer(index: int) -> Layer:
        at = f"model.layers.{index}"
        qkv = {
            "self_attn.q_proj": config.q_width,
            "self_attn.k_proj": config.kv_width,
            "self_attn.v_proj": config.kv_width,
        }
        gate_up = {"mlp.gate_proj": config.intermediate, "mlp.up_proj": config.intermediate}
        o, down = {"self_attn.o_proj": config.hidden}, {"mlp.down_proj": config.hidden}
        return Layer(
            qkv=joined(index, "qkv", qkv, config.hidden, bias=config.qkv_bias),
            o=joined(index, "o", o, config.q_width, bias=config.output_bias),
            gate_up=joined(index, "gate_up", gate_up, config.hidden, bias=config.mlp_bias),
            down=joined(index, "down", down, config.intermediate, bias=config.mlp_bias),
            attention_norm=take(f"{at}.input_layernorm.weight", config.hidden),
            mlp_norm=take(f"{at}.post_attention_layernorm.weight", config.hidden),
            q_norm=head_norm(f"{at}.self_attn.q_norm.weight"),
            k_norm=head_norm(f"{at}.self_attn.k_norm.weight"),
        )

    embedding = take("model.embed_tokens.weight", config.vocabulary, config.hidden)
    tied = config.tied_embeddings or "lm_head.weight" not in weights
    return Llama(
        config=config,
        device=device,
        embedding=embedding,
        layers=[layer(index) for index in range(config.layers)],
        norm=take("model.norm.weight", config.hidden),
        head=device.linear(
            embedding if tied else take("lm_head.weight", config.vocabulary, config.hidden)
        ),
        rope=build_rope(config, device, rope_divisors),
    )
