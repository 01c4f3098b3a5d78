"""A decoder's layers in C: one call a step, or one a layer where torch attends to stretches."""

import ctypes
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from services.gpu_worker.kernels import device
from services.gpu_worker.kernels.cpu.attention import Layout, attend
from services.gpu_worker.kernels.cpu.linear import Deltas, Linear
from services.gpu_worker.kernels.cpu.weights import Rounded, RoundedInC, Weights, room
from services.gpu_worker.kernels.device import Layer, PagedKv
from services.gpu_worker.kernels.reference import Places

_int = ctypes.c_int32
_long = ctypes.c_int64
_float = ctypes.c_float
_pointer = ctypes.c_void_p


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, Weights) for name in ("qkv", "o", "gate_up", "down")),
        *((name, _pointer) for name in ("attention_norm", "mlp_norm", "q_norm", "k_norm")),
    )


_ROOM = ("layers", "x", "normed", "qkv", "seen", "gate_up", "gated", "added", "deltas")
_PLACES = ("cos", "sin", "pages", "offsets", "singles", "tables", "starts", "ends")
_COUNTS = ("count", "rows", "single_rows", "heads", "kv_heads", "head", "page_tokens")


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, _pointer) for name in _ROOM),
        ("rounded", RoundedInC),
        *((name, _pointer) for name in (*_PLACES, "keys", "values")),
        ("page_stride", _long),
        ("table_stride", _long),
        *((name, _int) for name in _COUNTS),
        ("eps", _float),
        ("head_eps", _float),
    )


class Layers:
    """See device.Layers."""

    def __init__(self, native: ctypes.CDLL, layers: Sequence[Layer], eps: float) -> None:
        self._native = native
        self._layers = layers  # C has their addresses
        self._eps = eps
        self._in_c = (_Layer * len(layers))(*(_layer_in_c(layer) for layer in layers))

    def __call__(
        self,
        x: Tensor,
        caches: Sequence[PagedKv],
        places: Places,
        layout: device.Layout,
        deltas: device.Deltas,
    ) -> None:
        assert isinstance(layout, Layout)
        assert isinstance(deltas, Deltas)
        _, kv_heads, page_tokens, head = caches[0].keys.shape
        heads = self._in_c[0].o.inputs // head
        between, rounded = self._between(x), self._rounded(x)
        at_once = not layout.stretches and self._native.lorikeet_attends(
            _int(heads // kv_heads), _int(head), _int(page_tokens)
        )
        keys, values = _pointers(c.keys for c in caches), _pointers(c.values for c in caches)
        norms = self._layers[0].head_norms
        step = _Step(
            **_addresses(x, between, places, layout),
            layers=ctypes.addressof(self._in_c),
            deltas=deltas.address,
            rounded=rounded.in_c,
            keys=ctypes.addressof(keys),
            values=ctypes.addressof(values),
            page_stride=caches[0].keys.stride(0),
            table_stride=layout.tables.shape[1],
            count=len(caches),
            rows=len(x),
            single_rows=len(layout.singles) if at_once else 0,
            heads=heads,
            kv_heads=kv_heads,
            head=head,
            page_tokens=page_tokens,
            eps=self._eps,
            head_eps=0.0 if norms is None else norms.eps,
        )
        if at_once:
            self._stages(step, 0, 2 * len(caches))
        else:
            self._by_layer(step, between, caches, layout)

    def _by_layer(
        self, step: _Step, between: Mapping[str, Tensor], caches: Sequence[PagedKv], layout: Layout
    ) -> None:
        """torch attends between the stages in C."""
        shape = (step.heads, step.head)
        q = between["qkv"][:, : step.heads * step.head].unflatten(1, shape)
        seen = between["seen"].unflatten(1, shape)
        self._stages(step, 0, 1)
        for index, cache in enumerate(caches, 1):
            attend(q, cache.keys, cache.values, layout, seen)
            self._stages(step, 2 * index - 1, min(2 * index + 1, 2 * len(caches)))

    def _between(self, x: Tensor) -> dict[str, Tensor]:
        """For what lies between the operations of a step."""
        first = self._in_c[0]
        widths = {
            "qkv": first.qkv.outputs,
            "seen": first.o.inputs,
            "gate_up": first.gate_up.outputs,
            "gated": first.down.inputs,
            "normed": x.shape[1],
            "added": x.shape[1],
        }
        return {name: torch.empty(len(x), width) for name, width in widths.items()}

    def _rounded(self, x: Tensor) -> Rounded:
        """For the products, one after the other."""
        first = self._in_c[0]
        products = (first.qkv, first.o, first.gate_up, first.down)
        return room(max(products, key=lambda weights: weights.inputs), len(x))

    def _stages(self, step: _Step, first: int, end: int) -> None:
        self._native.lorikeet_layers(ctypes.byref(step), _int(first), _int(end))


def _addresses(
    x: Tensor, between: Mapping[str, Tensor], places: Places, layout: Layout
) -> dict[str, int]:
    """By their names in _Step."""
    tensors = {
        "x": x,
        **between,
        **{"cos": places.cos, "sin": places.sin},
        **{"pages": places.pages, "offsets": places.offsets},
        **{"singles": layout.singles, "tables": layout.tables},
        **{"starts": layout.starts, "ends": layout.ends},
    }
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}


def _pointers(tensors: Iterable[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    addresses = [tensor.data_ptr() for tensor in tensors]
    return (_pointer * len(addresses))(*addresses)


def _layer_in_c(layer: Layer) -> _Layer:
    norms = layer.head_norms
    return _Layer(
        *(_weights(linear) for linear in (layer.qkv, layer.o, layer.gate_up, layer.down)),
        layer.attention_norm.data_ptr(),
        layer.mlp_norm.data_ptr(),
        None if norms is None else norms.q.data_ptr(),
        None if norms is None else norms.k.data_ptr(),
    )


def _weights(linear: device.Linear) -> Weights:
    assert isinstance(linear, Linear)
    return linear.in_c
