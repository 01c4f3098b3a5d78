"""What lies between the products, on the CPU: in C where a compiler is at hand."""

import ctypes

import torch
from torch import Tensor

from services.gpu_worker.kernels import reference
from services.gpu_worker.kernels.cpu.native import library
from services.gpu_worker.kernels.reference import HeadNorms, Places

_int = ctypes.c_int32
_long = ctypes.c_int64
_float = ctypes.c_float
_pointer = ctypes.c_void_p


def add_norm(x: Tensor, y: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """See reference.add_norm."""
    native = library()
    if native is None:
        return reference.add_norm(x, y, weight, eps)
    out = torch.empty_like(x)
    native.lorikeet_add_norm(
        _pointer(x.data_ptr()), _pointer(0 if y is None else y.data_ptr()),
        _pointer(weight.data_ptr()), _pointer(out.data_ptr()),
        _int(x.shape[0]), _int(x.shape[1]), _float(eps),
    )  # fmt: skip
    return out


def gate(gate_up: Tensor) -> Tensor:
    """See reference.gate."""
    native = library()
    if native is None:
        return reference.gate(gate_up)
    rows, width = gate_up.shape
    out = torch.empty(rows, width // 2)
    native.lorikeet_gate(
        _pointer(gate_up.data_ptr()), _pointer(out.data_ptr()), _int(rows), _int(width // 2)
    )
    return out


def enter_heads(
    qkv: Tensor, places: Places, keys: Tensor, values: Tensor, norms: HeadNorms | None
) -> Tensor:
    """See reference.enter_heads."""
    native = library()
    if native is None:
        return reference.enter_heads(qkv, places, keys, values, norms)
    _, kv_heads, page_tokens, head = keys.shape
    heads = qkv.shape[1] // head - 2 * kv_heads
    native.lorikeet_enter_heads(
        _pointer(qkv.data_ptr()),
        _pointer(places.cos.data_ptr()), _pointer(places.sin.data_ptr()),
        _pointer(0 if norms is None else norms.q.data_ptr()),
        _pointer(0 if norms is None else norms.k.data_ptr()),
        _float(0.0 if norms is None else norms.eps),
        _pointer(keys.data_ptr()), _pointer(values.data_ptr()), _long(keys.stride(0)),
        _pointer(places.pages.data_ptr()), _pointer(places.offsets.data_ptr()),
        _int(qkv.shape[0]), _int(heads), _int(kv_heads), _int(head), _int(page_tokens),
    )  # fmt: skip
    return qkv[:, : heads * head].unflatten(1, (heads, head))
