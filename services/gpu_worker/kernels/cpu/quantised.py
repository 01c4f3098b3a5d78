"""Products with weights of eight bits on the CPU, in C."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from services.core.errors import FailedPrecondition
from services.gpu_worker.kernels.cpu.linear import Linear
from services.gpu_worker.kernels.cpu.native import huge, library
from services.gpu_worker.kernels.cpu.weights import INT8, INT8_DYNAMIC, PANEL, QUAD, Weights
from services.gpu_worker.kernels.reference import Piece
from services.gpu_worker.kernels.rounding import NOT_MERGED, quantise

MOST_INPUTS = 1 << 17  # sums of so many products have 32 bits


class QuantisedLinear(Linear):
    """What adapters add is as it is to float32 weights: it sees inputs that nothing rounds."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, site: int = 0, dynamic: bool = False
    ) -> None:
        """weight: [out, in]. If `dynamic` inputs are rounded too, each row by its own scale.

        Raises FailedPrecondition where there are no kernels for it.
        """
        self._library = library()
        self.outputs, self.inputs = weight.shape
        if self._library is None:
            raise FailedPrecondition("int8 weights need the kernels in C, and so a compiler (CC)")
        if self.inputs > MOST_INPUTS:
            raise FailedPrecondition(f"int8 weights may have {MOST_INPUTS} inputs at most")
        self.bias = bias
        self.site = site
        self._kind = INT8_DYNAMIC if dynamic else INT8
        numbers, self.scales = quantise(weight)
        self._sums = numbers.sum(1, dtype=torch.int32)
        self.weight = _packed(numbers, QUAD if dynamic else 1)

    @property
    def in_c(self) -> Weights:
        """See Linear."""
        found = super().in_c
        found.scales, found.sums = self.scales.data_ptr(), self._sums.data_ptr()
        found.kind = self._kind
        return found

    def twin(self) -> Linear:
        """Adapters are not rounded, so these weights and an adapter's are none of their kind."""
        raise FailedPrecondition(NOT_MERGED)

    def become(self, linear: Linear, pieces: Sequence[Piece]) -> None:
        """Of twins, which there are none of."""
        raise NotImplementedError


def _packed(numbers: Tensor, together: int) -> Tensor:
    """[panels, in / together, PANEL, together], filled up with zeros."""
    outputs, inputs = numbers.shape
    whole = pad(numbers, (0, -inputs % together, 0, -outputs % PANEL))
    panels = whole.view(whole.shape[0] // PANEL, PANEL, -1, together).transpose(1, 2)
    return huge(torch.empty(panels.shape, dtype=torch.int8)).copy_(panels)
