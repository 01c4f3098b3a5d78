"""Canonical adapters, from the store's bytes to the matrices that a step multiplies with."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import safetensors
import torch
from safetensors.torch import load
from torch import Tensor

from services.core.base_model import BaseModel
from services.core.errors import CorruptData, FailedPrecondition
from services.core.types import Digest

FUSED: dict[str, tuple[str, ...]] = {
    "qkv": ("q", "k", "v"),
    "o": ("o",),
    "gate_up": ("gate", "up"),
    "down": ("down",),
}


@dataclass(frozen=True, slots=True)
class SiteWeights:
    """One module's factors, in fp32: a [rank, in], b [rank, out] with the scaling multiplied in."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """A verified adapter, by site ("0.q")."""

    sites: Mapping[str, SiteWeights]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Slice:
    """A module's share of a fused linear: rows of `down` and columns of the output."""

    rank_start: int
    rank_end: int
    column_start: int
    column_end: int
    up: Tensor  # [rank, out]


@dataclass(frozen=True, slots=True)
class FusedDelta:
    """What one adapter adds to one fused linear: x -> (x down^T) up, slice by slice."""

    down: Tensor  # [ranks of all slices, in]
    slices: Sequence[Slice]

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """x: [tokens, in]; y: [tokens, out], changed in place."""
        h = x @ self.down.T
        for part in self.slices:
            y[:, part.column_start : part.column_end].addmm_(
                h[:, part.rank_start : part.rank_end], part.up
            )


def parse_adapter(data: bytes, *, digest: Digest, card: BaseModel) -> AdapterWeights:
    """The adapter in `data`, a canonical safetensors file (see adapter_store/canonical.py).

    Raises CorruptData if the bytes are not the digest's, FailedPrecondition if they are for
    another base model.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise CorruptData(f"the bytes of adapter {digest[:12]} are not what its digest says")
    try:
        tensors = load(data)
        facts = json.loads(_metadata(data)["lorikeet"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CorruptData(f"adapter {digest[:12]} is not a canonical adapter") from error
    if facts["base_fingerprint"] != card.fingerprint:
        raise FailedPrecondition(f"adapter {digest[:12]} is for another base model")
    sites = {
        site: SiteWeights(
            a=tensors[f"{site}.A"].float(), b=tensors[f"{site}.B"].float().T.mul(scale).contiguous()
        )
        for site, scale in facts["scaling"].items()
    }
    size = sum((w.a.numel() + w.b.numel()) * 4 for w in sites.values())
    return AdapterWeights(sites, size)


def fuse(weights: AdapterWeights, card_sites: Mapping[str, int]) -> dict[str, FusedDelta]:
    """Deltas by "layer.fused" name. `card_sites`: the output width of every site."""
    layers = {site.split(".")[0] for site in weights.sites}
    fused = {}
    for layer in layers:
        for name, modules in FUSED.items():
            delta = _fuse(weights, [f"{layer}.{module}" for module in modules], card_sites)
            if delta is not None:
                fused[f"{layer}.{name}"] = delta
    return fused


def _fuse(
    weights: AdapterWeights, sites: Sequence[str], widths: Mapping[str, int]
) -> FusedDelta | None:
    downs: list[Tensor] = []
    slices: list[Slice] = []
    rank = column = 0
    for site in sites:
        if site in weights.sites:
            factors = weights.sites[site]
            following = rank + factors.a.shape[0]
            slices.append(Slice(rank, following, column, column + widths[site], factors.b))
            downs.append(factors.a)
            rank = following
        column += widths[site]
    return FusedDelta(torch.cat(downs), tuple(slices)) if slices else None


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata
