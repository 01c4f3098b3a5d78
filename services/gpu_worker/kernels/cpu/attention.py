"""Attention over pages on the CPU: single tokens all at once in C, stretches by torch."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from services.gpu_worker.kernels import reference
from services.gpu_worker.kernels.cpu.native import library
from services.gpu_worker.kernels.device import Span
from services.gpu_worker.kernels.reference import gather_pages, page_tables

_int = ctypes.c_int32
_long = ctypes.c_int64
_pointer = ctypes.c_void_p


@dataclass(frozen=True, slots=True)
class Stretch:
    """Several tokens of one sequence: rows first to last of the step, with the pages they see."""

    first: int
    last: int
    table: Tensor  # [pages]
    mask: Tensor  # [1, 1, group * rows, tokens up to the last row], True where a row may look


@dataclass(frozen=True, slots=True)
class Layout:
    singles: Tensor  # rows that are the only one of their sequence: [B]
    tables: Tensor  # their pages by position, padded: [B, P], int32
    starts: Tensor  # the first position that each sees: [B], int32
    ends: Tensor  # one more than the last: [B], int32
    stretches: Sequence[Stretch]


def lay_out(spans: Sequence[Span], *, page_tokens: int, group: int, window: int | None) -> Layout:
    singles = [span for span in spans if span.count == 1]
    ends = [span.position + 1 for span in singles]
    return Layout(
        singles=torch.tensor([span.first for span in singles], dtype=torch.long),
        tables=page_tables([span.table(page_tokens) for span in singles]),
        starts=torch.tensor([max(0, end - (window or end)) for end in ends], dtype=torch.int32),
        ends=torch.tensor(ends, dtype=torch.int32),
        stretches=[_stretch(span, page_tokens, group, window) for span in spans if span.count > 1],
    )


def attend(q: Tensor, keys: Tensor, values: Tensor, layout: Layout, out: Tensor) -> None:
    """See device.Device.attention; into `out`."""
    if layout.singles.numel():
        decode_attention(q, keys, values, layout, out)
    for stretch in layout.stretches:
        rows = slice(stretch.first, stretch.last)
        out[rows] = _attend_stretch(q[rows], keys, values, stretch)


def decode_attention(q: Tensor, keys: Tensor, values: Tensor, layout: Layout, out: Tensor) -> None:
    """Of the layout's single tokens, into their rows of `out`; see reference.decode_attention."""
    native = library()
    _, heads, head = q.shape
    _, kv_heads, page_tokens, _ = keys.shape
    group = heads // kv_heads
    if native is None or not native.lorikeet_attends(_int(group), _int(head), _int(page_tokens)):
        out[layout.singles] = reference.decode_attention(
            q[layout.singles],
            keys,
            values,
            tables=layout.tables,
            starts=layout.starts,
            ends=layout.ends,
        )
        return
    native.lorikeet_decode_attention(
        _pointer(q.data_ptr()), _long(q.stride(0)), _pointer(out.data_ptr()),
        _pointer(layout.singles.data_ptr()),
        _pointer(keys.data_ptr()), _pointer(values.data_ptr()), _long(keys.stride(0)),
        _pointer(layout.tables.data_ptr()), _long(layout.tables.shape[1]),
        _pointer(layout.starts.data_ptr()), _pointer(layout.ends.data_ptr()),
        _int(len(layout.singles)), _int(kv_heads), _int(group), _int(head), _int(page_tokens),
        ctypes.c_float(head**-0.5),
    )  # fmt: skip


def _stretch(span: Span, page_tokens: int, group: int, window: int | None) -> Stretch:
    table = torch.tensor(span.table(page_tokens))
    rows = torch.arange(span.position, span.position + span.count).unsqueeze(1)
    mask = reference.visible(rows, span.position + span.count, window)
    return Stretch(span.first, span.first + span.count, table, mask.repeat(group, 1)[None, None])


def _attend_stretch(q: Tensor, keys: Tensor, values: Tensor, stretch: Stretch) -> Tensor:
    """The query heads that share a key head are laid out as rows of it.

    What lies behind the last row in its page may be anything: even masked, a NaN would spread.
    """
    rows = q.unflatten(1, (keys.shape[1], -1))
    group = rows.shape[2]
    table, seen_tokens = stretch.table.unsqueeze(0), stretch.mask.shape[-1]
    seen = scaled_dot_product_attention(
        rows.permute(1, 2, 0, 3).flatten(1, 2).unsqueeze(0),
        gather_pages(keys, table)[:, :, :seen_tokens],
        gather_pages(values, table)[:, :, :seen_tokens],
        attn_mask=stretch.mask,
    )
    back = seen.squeeze(0).unflatten(1, (group, len(q))).permute(2, 0, 1, 3)
    return back.flatten(1, 2)
