"""A decoder's layers, one operation of a device after another: what cpu/layers.c does at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from services.gpu_worker.kernels.device import Deltas, Device, Layer, Layout, PagedKv
from services.gpu_worker.kernels.reference import Places


@dataclass(frozen=True, slots=True)
class Layers:
    """See device.Layers."""

    device: Device
    layers: Sequence[Layer]
    eps: float

    def __call__(
        self, x: Tensor, caches: Sequence[PagedKv], places: Places, layout: Layout, deltas: Deltas
    ) -> None:
        device = self.device
        added: Tensor | None = None
        for layer, cache in zip(self.layers, caches, strict=True):
            normed = device.add_norm(x, added, layer.attention_norm, self.eps)
            qkv = layer.qkv(normed, deltas)
            q = device.enter_heads(qkv, places, cache.keys, cache.values, layer.head_norms)
            seen = device.attention(q, cache.keys, cache.values, layout)
            attended = layer.o(seen.flatten(1), deltas)
            normed = device.add_norm(x, attended, layer.mlp_norm, self.eps)
            added = layer.down(device.gate(layer.gate_up(normed, deltas)), deltas)
        if added is not None:
            x += added
