"""Paged keys and values, and attention over them on the CPU."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class PagedKv:
    """One layer's cache: keys and values [pages, page_tokens, kv_heads, head_dim]."""

    keys: Tensor
    values: Tensor

    def write(self, keys: Tensor, values: Tensor, slots: Tensor) -> None:
        """keys, values: [tokens, kv_heads, head_dim]; slots: [tokens], page * page_tokens + i."""
        self.keys.flatten(0, 1).index_copy_(0, slots, keys)
        self.values.flatten(0, 1).index_copy_(0, slots, values)


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

    slots: Tensor  # [tokens]
    singles: Tensor  # rows that are the only one of their sequence: [B]
    tables: Tensor  # their pages, padded: [B, P]
    mask: Tensor  # [B, 1, 1, P * page_tokens]
    stretches: Sequence[Stretch]


def paged_attention(q: Tensor, kv: PagedKv, layout: KvLayout) -> Tensor:
    """q: [tokens, heads, head_dim] -> [tokens, heads * head_dim].

    The query heads that share a key head are laid out as rows of it, so nothing is repeated.
    """
    tokens, heads, head_dim = q.shape
    kv_heads = kv.keys.shape[2]
    out = torch.empty_like(q)
    if layout.singles.numel():
        rows = q[layout.singles].unflatten(1, (kv_heads, heads // kv_heads))
        seen = scaled_dot_product_attention(
            rows,
            _gather(kv.keys, layout.tables),
            _gather(kv.values, layout.tables),
            attn_mask=layout.mask,
        )
        out[layout.singles] = seen.flatten(1, 2)
    for stretch in layout.stretches:
        count = stretch.last - stretch.first
        rows = q[stretch.first : stretch.last].unflatten(1, (kv_heads, heads // kv_heads))
        seen = scaled_dot_product_attention(
            rows.permute(1, 2, 0, 3).flatten(1, 2).unsqueeze(0),
            _gather(kv.keys, stretch.table.unsqueeze(0)),
            _gather(kv.values, stretch.table.unsqueeze(0)),
            attn_mask=stretch.mask,
        )
        back = seen.squeeze(0).unflatten(1, (heads // kv_heads, count)).permute(2, 0, 1, 3)
        out[stretch.first : stretch.last] = back.flatten(1, 2)
    return out.view(tokens, heads * head_dim)


def _gather(cache: Tensor, tables: Tensor) -> Tensor:
    """[B, kv_heads, P * page_tokens, head_dim] of the pages [B, P]."""
    return cache[tables].flatten(1, 2).transpose(1, 2)
