"""Base weights of eight bits, made as they are loaded: a scale for every output."""

from typing import Literal

import torch
from torch import Tensor

MOST = 127
AT_ONCE = 4096  # rows
NOT_MERGED = "adapters cannot be merged into int8 weights, only into those that nobody rounded"

Kind = Literal["float32", "int8", "int8-dynamic"]


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[out, in] -> int8 numbers from -127 to 127, of the same shape, and scales [out], float32:
    each weight is at most half a scale from its number times that."""
    # Some rows at a time: widened, the head of a large model takes gigabytes.
    parts = [_quantised(rows.float()) for rows in weight.split(AT_ONCE)]
    return torch.cat([numbers for numbers, _ in parts]), torch.cat([scales for _, scales in parts])


def _quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.abs().amax(1) / MOST
    numbers = torch.round(weight / scales.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(1))
    return numbers.clamp(-MOST, MOST).to(torch.int8), scales
