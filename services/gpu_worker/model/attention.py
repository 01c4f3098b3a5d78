"""Paged keys and values, and attention over them on the CPU."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from services.gpu_worker.kernels.cpu import decode_attention
from services.gpu_worker.kernels.reference import gather_pages


@dataclass(frozen=True, slots=True)
class PagedKv:
    """One layer's cache: keys and values [pages, kv_heads, page_tokens, head_dim]."""

    keys: Tensor
    values: Tensor

    def write(self, keys: Tensor, values: Tensor, layout: "KvLayout") -> None:
        """keys, values: [tokens, kv_heads, head_dim]."""
        self.keys[layout.pages, :, layout.offsets] = keys
        self.values[layout.pages, :, layout.offsets] = values


@dataclass(frozen=True, slots=True)
class Stretch:
    """Several tokens of one sequence: rows first to last of the step, with the pages they see."""

    first: int
    last: int
    table: Tensor  # [pages]
    mask: Tensor  # [1, 1, group * rows, pages * page_tokens], True where a row may look


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Where a step's tokens go and what they may see. Built once, used by every layer."""

    pages: Tensor  # [tokens]
    offsets: Tensor  # [tokens], within their pages
    singles: Tensor  # rows that are the only one of their sequence: [B]
    tables: Tensor  # their pages by position, padded: [B, P], int32
    starts: Tensor  # the first position that each sees: [B], int32
    ends: Tensor  # one more than the last: [B], int32
    stretches: Sequence[Stretch]


def paged_attention(q: Tensor, kv: PagedKv, layout: KvLayout) -> Tensor:
    """q: [tokens, heads, head_dim] -> [tokens, heads * head_dim]."""
    tokens, heads, head_dim = q.shape
    out = torch.empty_like(q)
    if layout.singles.numel():
        seen = decode_attention(
            q[layout.singles],
            kv.keys,
            kv.values,
            tables=layout.tables,
            starts=layout.starts,
            ends=layout.ends,
        )
        out[layout.singles] = seen
    for stretch in layout.stretches:
        out[stretch.first : stretch.last] = _attend(q[stretch.first : stretch.last], kv, stretch)
    return out.view(tokens, heads * head_dim)


def _attend(q: Tensor, kv: PagedKv, stretch: Stretch) -> Tensor:
    """The query heads that share a key head are laid out as rows of it."""
    kv_heads = kv.keys.shape[1]
    rows = q.unflatten(1, (kv_heads, -1))
    group = rows.shape[2]
    seen = scaled_dot_product_attention(
        rows.permute(1, 2, 0, 3).flatten(1, 2).unsqueeze(0),
        gather_pages(kv.keys, stretch.table.unsqueeze(0)),
        gather_pages(kv.values, stretch.table.unsqueeze(0)),
        attn_mask=stretch.mask,
    )
    back = seen.squeeze(0).unflatten(1, (group, len(q))).permute(2, 0, 1, 3)
    return back.flatten(1, 2)
