"""The base's products on CUDA, by torch, with what adapters add to them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from services.gpu_worker.kernels import device
from services.gpu_worker.kernels.cuda.deltas import Deltas
from services.gpu_worker.kernels.reference import Piece


class Linear:
    """See device.Linear."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, site: int) -> None:
        self._weight = weight
        self._bias = bias
        self._site = site

    def __call__(self, x: Tensor, deltas: device.Deltas | None = None) -> Tensor:
        if deltas is None:
            return self._product(x)
        assert isinstance(deltas, Deltas)
        deltas.shrink(x, self._site)
        y = self._product(x)
        deltas.expand(y, self._site)
        return y

    def twin(self) -> "Linear":
        """See device.Device."""
        return Linear(torch.empty_like(self._weight), self._bias, site=self._site)

    def become(self, linear: "Linear", pieces: Sequence[Piece]) -> None:
        """See device.Device.fold."""
        self._weight.copy_(linear._weight)
        for piece in pieces:
            for part in piece.slices:
                down = piece.down[part.rank_start : part.rank_end]
                self._weight[part.column_start : part.column_end].addmm_(part.up.T, down)

    def _product(self, x: Tensor) -> Tensor:
        return linear(x, self._weight, self._bias)
