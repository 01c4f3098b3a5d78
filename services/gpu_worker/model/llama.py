"""The network: Llama and its siblings (Mistral, Qwen2), flat over tokens, paged, with adapters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from services.core.errors import FailedPrecondition
from services.gpu_worker.kernels.cpu import Linear
from services.gpu_worker.model.attention import PagedKv, paged_attention
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


@dataclass(frozen=True, slots=True)
class Llama:
    config: ModelConfig
    embedding: Tensor  # [vocabulary, hidden]
    layers: Sequence[Layer]
    norm: Tensor
    head: Linear
    rope: Rope

    def forward(self, step: StepInputs, caches: Sequence[PagedKv]) -> Tensor:
        """Logits of the sampling rows, [B, vocabulary]."""
        x = self.embedding[step.tokens]
        rotation = self.rope.at(step.positions)
        for index, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            normed = self._norm(x, layer.attention_norm)
            x = x + self._attend(layer, index, normed, step, cache=cache, rotation=rotation)
            x = x + self._mlp(layer, index, self._norm(x, layer.mlp_norm), step)
        if not step.sampling_rows.numel():
            return x.new_empty(0, self.config.vocabulary)
        return self.head(self._norm(x[step.sampling_rows], self.norm))

    def _attend(
        self,
        layer: Layer,
        index: int,
        x: Tensor,
        step: StepInputs,
        *,
        cache: PagedKv,
        rotation: tuple[Tensor, Tensor],
    ) -> Tensor:
        config = self.config
        site = index * len(FUSED)
        qkv = step.deltas.add(layer.qkv(x), x, site + SITES["qkv"])
        q, k, v = qkv.split((config.q_width, config.kv_width, config.kv_width), dim=-1)
        heads = (-1, config.head_dim)
        q = rotate(q.unflatten(-1, heads), *rotation)
        cache.write(rotate(k.unflatten(-1, heads), *rotation), v.unflatten(-1, heads), step.kv)
        seen = paged_attention(q, cache, step.kv)
        return step.deltas.add(layer.o(seen), seen, site + SITES["o"])

    def _mlp(self, layer: Layer, index: int, x: Tensor, step: StepInputs) -> Tensor:
        site = index * len(FUSED)
        both = step.deltas.add(layer.gate_up(x), x, site + SITES["gate_up"])
        gate, up = both.chunk(2, -1)
        inner = silu(gate) * up
        return step.deltas.add(layer.down(inner), inner, site + SITES["down"])

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, (x.shape[-1],), weight, self.config.norm_eps)


def build_llama(
    config: ModelConfig, weights: Mapping[str, Tensor], rope_divisors: Tensor | None = None
) -> Llama:
    """From tensors under their Hugging Face names. Raises FailedPrecondition for missing ones."""

    def take(name: str, *shape: int) -> Tensor:
        if name not in weights:
            raise FailedPrecondition(f"the weights have no {name}")
        if weights[name].shape != shape:
            found = list(weights[name].shape)
            raise FailedPrecondition(f"{name} has shape {found}, the config says {list(shape)}")
        return weights[name].float()

    def joined(prefix: str, names: Mapping[str, int], width: int, *, bias: bool) -> Linear:
        weight = torch.cat([take(f"{prefix}.{n}.weight", out, width) for n, out in names.items()])
        biases = [take(f"{prefix}.{n}.bias", out) for n, out in names.items()] if bias else []
        return Linear(weight, torch.cat(biases) if biases else None)

    def layer(index: int) -> Layer:
        at = f"model.layers.{index}"
        qkv = {"q_proj": config.q_width, "k_proj": config.kv_width, "v_proj": config.kv_width}
        gate_up = {"gate_proj": config.intermediate, "up_proj": config.intermediate}
        o, down = {"o_proj": config.hidden}, {"down_proj": config.hidden}
        return Layer(
            qkv=joined(f"{at}.self_attn", qkv, config.hidden, bias=config.qkv_bias),
            o=joined(f"{at}.self_attn", o, config.q_width, bias=config.output_bias),
            gate_up=joined(f"{at}.mlp", gate_up, config.hidden, bias=config.mlp_bias),
            down=joined(f"{at}.mlp", down, config.intermediate, bias=config.mlp_bias),
            attention_norm=take(f"{at}.input_layernorm.weight", config.hidden),
            mlp_norm=take(f"{at}.post_attention_layernorm.weight", config.hidden),
        )

    embedding = take("model.embed_tokens.weight", config.vocabulary, config.hidden)
    tied = config.tied_embeddings or "lm_head.weight" not in weights
    return Llama(
        config=config,
        embedding=embedding,
        layers=[layer(index) for index in range(config.layers)],
        norm=take("model.norm.weight", config.hidden),
        head=Linear(
            embedding if tied else take("lm_head.weight", config.vocabulary, config.hidden)
        ),
        rope=build_rope(config, rope_divisors),
    )
