"""A second set of a decoder's weights, that one adapter at a time is folded into (dLoRA, OSDI'24).

The model's own weights are only ever read, so they are the same bytes whatever was folded and taken
back. Where others run beside the adapter it is taken away from them by its own kernels: what it
adds, negated, is an adapter too.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from services.core.types import Digest
from services.gpu_worker.kernels.device import Bank, Device
from services.gpu_worker.kernels.reference import Piece
from services.gpu_worker.model.llama import Llama

Sites = Sequence[Sequence[Piece]]
"""An adapter's pieces by site number."""


def second_bytes(model: Llama) -> int:
    """That second weights take."""
    config = model.config
    elements = sum(module.in_features * module.out_features for module in config.modules())
    return elements * model.device.dtype.itemsize


class SecondWeights:
    """`network` runs with them; its embedding, norms and head are the model's."""

    def __init__(self, model: Llama) -> None:
        device = model.device
        self._own = [linear for layer in model.stack for linear in layer.linears]
        self._twins = [device.twin(linear) for linear in self._own]
        twins = iter(self._twins)
        stack = [
            replace(layer, qkv=next(twins), o=next(twins), gate_up=next(twins), down=next(twins))
            for layer in model.stack
        ]
        layers = device.layers(stack, model.config.norm_eps)
        self.network = replace(model, stack=stack, layers=layers)

    def __len__(self) -> int:
        """Linears, each with a site."""
        return len(self._own)

    def fold(self, site: int, pieces: Sequence[Piece]) -> None:
        self.network.device.fold(self._twins[site], self._own[site], pieces)


class Folding:
    """An adapter on its way into the weights, and what it adds, negated, on its way into pages."""

    def __init__(self, weights: SecondWeights, adapter: Digest, own: Sites, negated: Sites) -> None:
        self._weights = weights
        self._own = own
        self._left = len(weights)
        self.adapter = adapter
        self.negated = negated

    def advance(self) -> bool:
        """One linear; whether it was the last."""
        self._left -= 1
        own = self._own[self._left]
        for piece, negated in zip(own, self.negated[self._left], strict=True):
            negated.down.copy_(piece.down)
            for part, other in zip(piece.slices, negated.slices, strict=True):
                other.up.copy_(part.up).neg_()
        self._weights.fold(self._left, own)
        return self._left == 0


class Beside:
    """What the rows of a step add to weights that an adapter is folded into."""

    def __init__(self, device: Device, memory: Tensor, folded: Folding) -> None:
        self._device = device
        self._memory = memory
        self._adapter = folded.adapter
        self._negated = folded.negated
        self._banks: dict[Digest | None, Bank] = {None: device.bank(folded.negated, memory)}

    def bank_of(self, adapter: Digest | None, own: Sites) -> Bank | None:
        """None for its own rows: the weights are right for them."""
        if adapter == self._adapter:
            return None
        if adapter not in self._banks:
            both = [[*a, *b] for a, b in zip(own, self._negated, strict=True)]
            self._banks[adapter] = self._device.bank(both, self._memory)
        return self._banks[adapter]

    def forget(self, adapter: Digest) -> None:
        """It leaves its pages."""
        self._banks.pop(adapter, None)
