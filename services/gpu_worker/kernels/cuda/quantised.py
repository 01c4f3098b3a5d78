"""Products with base weights of eight bits on CUDA: half of what a step with few rows reads.

Few rows are multiplied by a kernel that widens the numbers where it multiplies, so that memory is
read once and in full width. For many, whose time goes into the products, the weights are widened
first, and torch multiplies.
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
WIDTH = 16  # outputs that a block takes: narrow models have few, and every processor wants some


@triton.jit
def multiply(
    x, numbers, scales, bias, y, count, x_stride,
    OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, HAS_BIAS: tl.constexpr,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Grid: blocks of outputs, blocks of rows. y = x W^T + b, turned round: outputs are the rows of
    the products, for those operands can be widened in registers."""
    output = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    row = tl.program_id(1) * HEIGHT + tl.arange(0, HEIGHT)
    is_output = output < OUTPUTS
    is_row = row < count
    sums = tl.zeros((WIDTH, HEIGHT), tl.float32)
    for first in range(0, INPUTS, DEPTH):
        at = first + tl.arange(0, DEPTH)
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
    scale = tl.load(scales + output, mask=is_output, other=0.0)
    sums *= scale[:, None]
    if HAS_BIAS:
        sums += tl.load(bias + output, mask=is_output, other=0.0).to(tl.float32)[:, None]
    tl.store(
        y + row[None, :] * OUTPUTS + output[:, None], sums.to(y.dtype.element_ty),
        mask=is_row[None, :] & is_output[:, None],
    )  # fmt: skip


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
        has_bias = self._bias is not None
        height = next((height for height in HEIGHTS if rows <= height), HEIGHTS[-1])
        depth = min(self._launch.block, triton.next_power_of_2(inputs))
        multiply[(triton.cdiv(outputs, WIDTH), triton.cdiv(rows, height))](
            x, self._weight, self._scales, self._bias if has_bias else y, y, rows, x.stride(0),
            OUTPUTS=outputs, INPUTS=inputs, HAS_BIAS=has_bias,
            HEIGHT=height, WIDTH=WIDTH, DEPTH=depth, **self._launch.options,
        )  # fmt: skip
        return y
