"""Products with base weights of eight bits on CUDA: half of what a step with few rows reads.

Few rows are multiplied by a kernel that widens the numbers where it multiplies, so that memory is
read in full width and, up to 64 rows, once. For many, whose time goes into the products, the
weights are widened first, and torch multiplies.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import linear

from services.core.errors import FailedPrecondition
from services.gpu_worker.kernels.cuda.config import Launch
from services.gpu_worker.kernels.cuda.dot import WIDENS, dot
from services.gpu_worker.kernels.cuda.linear import Linear
from services.gpu_worker.kernels.reference import Piece
from services.gpu_worker.kernels.rounding import NOT_MERGED, quantise

MOST_ROWS = 128  # of the kernel
HEIGHTS = (16, 32, 64)  # rows that a block takes
WIDTH = 64  # outputs that a block takes: with fewer x is read more often than weights are
BLOCKS = 256  # that a device wants: where outputs are few, sums are split
MOST_PARTS = 8


@triton.jit
def multiply(
    x, numbers, scales, bias, y, partial, count, x_stride,
    OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, STEPS: tl.constexpr,
    HAS_BIAS: tl.constexpr, IS_SPLIT: tl.constexpr,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Grid: blocks of rows, of outputs, parts of the sum. y = x W^T + b, turned round: outputs are
    the rows of the products, for those operands can be widened in registers. A part of a split sum
    goes to partial, [parts, rows, OUTPUTS]."""
    output = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    row = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    part = tl.program_id(2)
    is_output = output < OUTPUTS
    is_row = row < count
    sums = tl.zeros((WIDTH, HEIGHT), tl.float32)
    for step in range(STEPS):
        at = (part * STEPS + step) * DEPTH + tl.arange(0, DEPTH)
        inside = at < INPUTS
        weights = tl.load(
            numbers + output[:, None].to(tl.int64) * INPUTS + at[None, :],
            mask=is_output[:, None] & inside[None, :], other=0,
        )  # fmt: skip
        inputs = tl.load(
            x + row[None, :] * x_stride + at[:, None],
            mask=is_row[None, :] & inside[:, None], other=0.0,
        )  # fmt: skip
        # The interpreter would take the integers for bfloat16's bits; both fit these numbers.
        sums += dot(weights.to(tl.float32 if WIDENS else inputs.dtype), inputs)
    to = row[None, :] * OUTPUTS + output[:, None]
    mask = is_row[None, :] & is_output[:, None]
    if IS_SPLIT:
        tl.store(partial + part * count * OUTPUTS + to, sums, mask=mask)
    else:
        scale = tl.load(scales + output, mask=is_output, other=0.0)
        sums *= scale[:, None]
        if HAS_BIAS:
            sums += tl.load(bias + output, mask=is_output, other=0.0).to(tl.float32)[:, None]
        tl.store(y + to, sums.to(y.dtype.element_ty), mask=mask)


@triton.jit
def add_up(
    partial, scales, bias, y, count, parts,
    OUTPUTS: tl.constexpr, HAS_BIAS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Grid: rows, blocks of outputs. The parts of split sums, in their order."""
    row = tl.program_id(0)
    output = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    mask = output < OUTPUTS
    sums = tl.zeros((WIDTH,), tl.float32)
    for part in range(parts):
        sums += tl.load(partial + (part * count + row) * OUTPUTS + output, mask=mask, other=0.0)
    sums *= tl.load(scales + output, mask=mask, other=0.0)
    if HAS_BIAS:
        sums += tl.load(bias + output, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + row * OUTPUTS + output, sums.to(y.dtype.element_ty), mask=mask)


class QuantisedLinear(Linear):
    """What adapters add is as it is to weights that nobody rounded."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, launch: Launch, *, site: int = 0
    ) -> None:
        """weight: [out, in], of the device's precision, which products are computed in."""
        numbers, self._scales = quantise(weight)
        super().__init__(numbers, bias, site=site)
        self._dtype = weight.dtype
        self._launch = launch

    def twin(self) -> Linear:
        """Adapters are not rounded, so these weights and an adapter's are none of their kind."""
        raise FailedPrecondition(NOT_MERGED)

    def become(self, linear: Linear, pieces: Sequence[Piece]) -> None:
        """Of twins, which there are none of."""
        raise NotImplementedError

    def _product(self, x: Tensor) -> Tensor:
        if len(x) <= MOST_ROWS:
            return self._by_kernel(x)
        whole = torch.empty_like(self._weight, dtype=self._dtype)
        torch.mul(self._weight, self._scales.unsqueeze(1), out=whole)
        return linear(x, whole, self._bias)

    def _by_kernel(self, x: Tensor) -> Tensor:
        rows, (outputs, inputs) = len(x), self._weight.shape
        y = torch.empty(rows, outputs, dtype=self._dtype, device=x.device)
        has_bias, height = self._bias is not None, height_for(rows)
        bias = self._bias if has_bias else y
        depth = min(self._launch.block, triton.next_power_of_2(inputs))
        blocks = triton.cdiv(rows, height), triton.cdiv(outputs, WIDTH)
        parts = parts_for(blocks[0] * blocks[1], triton.cdiv(inputs, depth))
        partial = torch.empty(parts, rows, outputs, device=x.device) if parts > 1 else y
        multiply[(*blocks, parts)](
            x, self._weight, self._scales, bias, y, partial, rows, x.stride(0),
            OUTPUTS=outputs, INPUTS=inputs, STEPS=triton.cdiv(inputs, depth * parts),
            HAS_BIAS=has_bias, IS_SPLIT=parts > 1, HEIGHT=height, WIDTH=WIDTH, DEPTH=depth,
            **self._launch.options,
        )  # fmt: skip
        if parts > 1:
            width = min(1024, triton.next_power_of_2(outputs))
            add_up[(rows, triton.cdiv(outputs, width))](
                partial, self._scales, bias, y, rows, parts,
                OUTPUTS=outputs, HAS_BIAS=has_bias, WIDTH=width,
            )  # fmt: skip
        return y


def height_for(rows: int) -> int:
    return next((height for height in HEIGHTS if rows <= height), HEIGHTS[-1])


def parts_for(blocks: int, steps: int) -> int:
    """That a sum of so many steps is split into: a power of two."""
    parts = 1
    while parts < MOST_PARTS and blocks * parts < BLOCKS and parts * 2 <= steps:
        parts *= 2
    return parts
