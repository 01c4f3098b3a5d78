"""A product's weights as C has them: see team.h."""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

PANEL = 16  # outputs
QUAD = 4  # numbers of eight bits that are multiplied at once
FLOAT32, INT8, INT8_DYNAMIC = range(3)


class Weights(ctypes.Structure):
    _fields_ = (
        ("packed", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("outputs", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("kind", ctypes.c_int32),
        ("site", ctypes.c_int32),
    )


class RoundedInC(ctypes.Structure):
    _fields_ = (("numbers", ctypes.c_void_p), ("scales", ctypes.c_void_p))


@dataclass(frozen=True, slots=True)
class Rounded:
    """Room for what products round their inputs to."""

    numbers: Tensor
    scales: Tensor

    @property
    def in_c(self) -> RoundedInC:
        """With addresses of what it holds."""
        return RoundedInC(self.numbers.data_ptr(), self.scales.data_ptr())


def room(weights: Weights, rows: int) -> Rounded:
    """None if they multiply with inputs as they are."""
    rows = rows if weights.kind == INT8_DYNAMIC else 0
    inputs = -(-weights.inputs // QUAD) * QUAD
    return Rounded(torch.empty(rows, inputs, dtype=torch.uint8), torch.empty(rows))
