"""Base weights of eight bits, made as they are loaded: a scale for every output."""

from typing import Literal

import torch
from torch import Tensor

MOST = 127
NOT_MERGED = "adapters cannot be merged into int8 weights, only into those that nobody rounded"

Kind = Literal["float32", "int8", "int8-dynamic"]


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[out, in] -> int8 numbers from -127 to 127, of the same shape, and scales [out], float32:
    each weight is at most half a scale from its number times that."""
    weight = weight.float()
    scales = weight.abs().amax(1) / MOST
    numbers = torch.round(weight / scales.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(1))
    return numbers.clamp(-MOST, MOST).to(torch.int8), scales
