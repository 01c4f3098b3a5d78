"""Rotary position embeddings (RoFormer, arXiv 2104.09864), in the half-split form of Llama."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from services.gpu_worker.kernels.device import Device
from services.gpu_worker.model.config import ModelConfig, RopeScaling


@dataclass(frozen=True, slots=True)
class Rope:
    """Tables [context, head_dim]; the first half of `sin` is negated, so both halves turn alike."""

    cos: Tensor
    sin: Tensor

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of each token, [tokens, head_dim]."""
        return self.cos[positions], self.sin[positions]


def build_rope(config: ModelConfig, device: Device, divisors: Tensor | None = None) -> Rope:
    """`divisors` [head_dim / 2] divide the frequencies, for models that ship their scaling so."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponents)
    if config.rope_scaling is not None:
        frequencies = _scaled(frequencies, config.rope_scaling)
    if divisors is not None:
        frequencies = frequencies / divisors
    angles = torch.outer(torch.arange(config.context).float(), frequencies)
    cos, sin = angles.cos(), angles.sin()
    return Rope(
        cos=torch.cat((cos, cos), dim=-1).to(device.place, device.dtype),
        sin=torch.cat((-sin, sin), dim=-1).to(device.place, device.dtype),
    )


def _scaled(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    # Llama 3.1: long wavelengths are stretched, short ones kept, those between blended.
    wavelengths = 2 * math.pi / frequencies
    low = scaling.original_context / scaling.low_freq_factor
    high = scaling.original_context / scaling.high_freq_factor
    blend = (scaling.original_context / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    between = (1 - blend) * frequencies / scaling.factor + blend * frequencies
    stretched = torch.where(wavelengths > low, frequencies / scaling.factor, frequencies)
    return torch.where((wavelengths <= low) & (wavelengths >= high), between, stretched)
