"""A member's part of a network (Megatron-LM, arXiv 1909.08053): heads and the MLP's inner width are
dealt out, and with them keys and values; the vocabulary is for the head, not for the embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from services.core.errors import FailedPrecondition
from services.gpu_worker.kernels.device import Deltas, Device, Layer, Layout, Linear, PagedKv
from services.gpu_worker.kernels.reference import Places
from services.gpu_worker.model.config import ModelConfig
from services.gpu_worker.model.layout import FUSED, SITES
from services.gpu_worker.model.llama import Llama, build_llama
from services.gpu_worker.model.parallel.collectives import Collectives, Matter
from services.gpu_worker.model.parallel.deltas import OwnDeltas, Products, SharedDeltas, sharing
from services.gpu_worker.model.parallel.member import COLUMNS, Member, Partition

HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class ParallelLayers:
    """See device.Layers; as kernels/layers.py, with the sums that a group needs."""

    device: Device
    layers: Sequence[Layer]
    eps: float
    products: Products

    def __call__(
        self, x: Tensor, caches: Sequence[PagedKv], places: Places, layout: Layout, deltas: Deltas
    ) -> None:
        device, column, row = self.device, self.products.column, self.products.row
        added: Tensor | None = None
        for number, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            sites = {fused: number * len(FUSED) + site for fused, site in SITES.items()}
            normed = device.add_norm(x, added, layer.attention_norm, self.eps)
            qkv = column(layer.qkv, normed, deltas, sites["qkv"])
            q = device.enter_heads(qkv, places, cache.keys, cache.values, layer.head_norms)
            seen = device.attention(q, cache.keys, cache.values, layout)
            attended = row(layer.o, seen.flatten(1), deltas, sites["o"])
            normed = device.add_norm(x, attended, layer.mlp_norm, self.eps)
            gated = device.gate(column(layer.gate_up, normed, deltas, sites["gate_up"]))
            added = row(layer.down, gated, deltas, sites["down"])
        if added is not None:
            x += added


@dataclass(frozen=True, slots=True)
class ParallelHead:
    """See device.Linear: whole at the leader, who samples."""

    own: Linear  # of a part of the vocabulary, filled up so that all parts are as large
    vocabulary: int
    collectives: Collectives

    def __call__(self, x: Tensor, deltas: Deltas | None = None) -> Tensor:
        own = self.own(x)
        found = self.collectives.collect(Matter.LOGITS, own)
        return torch.cat(found, 1)[:, : self.vocabulary] if found else own


def build_part(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    device: Device,
    rope_divisors: Tensor | None = None,
    *,
    collectives: Collectives,
    partition: Partition,
) -> Llama:
    """See build_llama; the caller's part. Raises FailedPrecondition."""
    member = collectives.member
    own = build_llama(
        part_of_config(config, member), part_of_weights(weights, member), device, rope_divisors
    )
    shares = partition is Partition.SHARDED
    products = SharedDeltas(collectives) if shares else OwnDeltas(collectives)
    head = device.linear(_head_rows(config, weights, own.embedding, member))
    return replace(
        own,
        device=sharing(device) if shares else device,
        layers=ParallelLayers(device, own.stack, config.norm_eps, products),
        head=ParallelHead(head, config.vocabulary, collectives),
    )


def part_of_config(config: ModelConfig, member: Member) -> ModelConfig:
    """Raises FailedPrecondition if anything does not divide."""
    parts = {
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "intermediate_size": config.intermediate,
        "hidden_size": config.hidden,
    }
    uneven = [f"{name} {size}" for name, size in parts.items() if size % member.of]
    if uneven:
        raise FailedPrecondition(
            f"GPU_WORKER_TENSOR_PARALLEL={member.of} does not divide the model's "
            f"{', '.join(uneven)}"
        )
    return replace(
        config,
        heads=config.heads // member.of,
        kv_heads=config.kv_heads // member.of,
        intermediate=config.intermediate // member.of,
    )


def part_of_weights(weights: Mapping[str, Tensor], member: Member) -> dict[str, Tensor]:
    """By the same names, without the head."""
    return {name: _part(name, whole, member) for name, whole in weights.items() if name != HEAD}


def _part(name: str, whole: Tensor, member: Member) -> Tensor:
    module, _, kind = name.rpartition(".")
    short = module.rpartition(".")[2].removesuffix("_proj")
    if not module.endswith("_proj"):
        return whole
    if short in COLUMNS:
        return whole[member.part(len(whole))]
    if kind == "weight":
        return whole[:, member.part(whole.shape[1])]
    return whole if member.number == 0 else torch.zeros_like(whole)  # a bias is added once


def _head_rows(
    config: ModelConfig, weights: Mapping[str, Tensor], embedding: Tensor, member: Member
) -> Tensor:
    whole = embedding if config.tied_embeddings else weights.get(HEAD, embedding)
    if whole.shape != (config.vocabulary, config.hidden):
        raise FailedPrecondition(f"{HEAD} has shape {list(whole.shape)}")
    each = -(-config.vocabulary // member.of)
    own = whole[member.number * each : (member.number + 1) * each]
    filled = own.new_zeros(each, config.hidden)
    filled[: len(own)] = own
    return filled.to(embedding.device, embedding.dtype)
