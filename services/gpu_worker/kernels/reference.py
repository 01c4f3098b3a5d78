"""What every kernel means, in torch: slow, short, and what the fast ones are tested against."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu


@dataclass(frozen=True, slots=True)
class Places:
    """Where a step's tokens stand in their sequences, and where their keys and values go."""

    cos: Tensor  # [tokens, head_dim]
    sin: Tensor  # its first half negated
    pages: Tensor  # [tokens]
    offsets: Tensor  # [tokens], within their pages


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Qwen3's, of every query and key head: [head_dim]."""

    q: Tensor
    k: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Slice:
    """A module's share of a fused linear: rows of `down`, columns of the output, and B."""

    rank_start: int
    rank_end: int
    column_start: int
    column_end: int
    up: Tensor  # [rank_end - rank_start, column_end - column_start]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of what one adapter adds to one fused linear: x -> (x down^T) up, slice by slice."""

    down: Tensor  # [ranks of all slices, in]
    slices: Sequence[Slice]


def add_norm(x: Tensor, y: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """x += y, in place; RMSNorm (arXiv 1910.07467) of the sum. x, y: [tokens, hidden]."""
    if y is not None:
        x += y
    return rms_norm(x, (x.shape[-1],), weight, eps)


def gate(gate_up: Tensor) -> Tensor:
    """SwiGLU (arXiv 2002.05202): [tokens, 2 * width] -> [tokens, width]."""
    gated, up = gate_up.chunk(2, -1)
    return silu(gated) * up


def enter_heads(
    qkv: Tensor, places: Places, keys: Tensor, values: Tensor, norms: HeadNorms | None
) -> Tensor:
    """Rotates queries and keys (RoFormer, arXiv 2104.09864, in Llama's half-split form) and writes
    keys and values to their pages. Gives the queries, [tokens, heads, head_dim].

    qkv: [tokens, q + k + v], which may be changed; keys, values: see device.Device.attention.
    """
    head = keys.shape[-1]
    kv_width = keys.shape[1] * head
    widths = (qkv.shape[1] - 2 * kv_width, kv_width, kv_width)
    q, k, v = (part.unflatten(1, (-1, head)) for part in qkv.split(widths, dim=-1))
    if norms is not None:
        q = rms_norm(q, (head,), norms.q, norms.eps)
        k = rms_norm(k, (head,), norms.k, norms.eps)
    keys[places.pages, :, places.offsets] = _rotated(k, places)
    values[places.pages, :, places.offsets] = v
    return _rotated(q, places)


def _rotated(x: Tensor, places: Places) -> Tensor:
    turned = torch.roll(x, x.shape[-1] // 2, dims=-1)
    return x * places.cos.unsqueeze(1) + turned * places.sin.unsqueeze(1)


def add_delta(y: Tensor, x: Tensor, pieces: Sequence[Piece]) -> None:
    """x: [tokens, in]; y: [tokens, out], changed in place."""
    for piece in pieces:
        h = x @ piece.down.T
        for part in piece.slices:
            y[:, part.column_start : part.column_end].addmm_(
                h[:, part.rank_start : part.rank_end], part.up
            )


def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, *, tables: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    """q: [B, heads, head_dim], one token a sequence, that sees its positions starts to ends - 1.

    keys, values: [pages, kv_heads, page_tokens, head_dim]; tables: [B, P] pages by position.
    The query heads that share a key head are laid out as rows of it, so nothing is repeated.
    What a token does not see may be anything: even masked, a NaN would spread.
    """
    positions = torch.arange(tables.shape[1] * keys.shape[2])
    visible = (positions >= starts.unsqueeze(1)) & (positions < ends.unsqueeze(1))
    seen = scaled_dot_product_attention(
        torch.unflatten(q, 1, (keys.shape[1], -1)),
        gather_pages(keys, tables).where(visible[:, None, :, None], 0),
        gather_pages(values, tables).where(visible[:, None, :, None], 0),
        attn_mask=visible[:, None, None, :],
    )
    return seen.flatten(1, 2)


def prefill_attention(
    q: Tensor, keys: Tensor, values: Tensor, *, table: Tensor, position: int, window: int | None
) -> Tensor:
    """q: [tokens, heads, head_dim], neighbours in one sequence, the first of them at `position`.

    Each sees what is before it, itself included, at most `window` of it. table: [P] pages.
    """
    group = q.shape[1] // keys.shape[1]
    rows = torch.arange(position, position + len(q)).unsqueeze(1)
    seen = scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0),
        gather_pages(keys, table.unsqueeze(0)).repeat_interleave(group, 1),
        gather_pages(values, table.unsqueeze(0)).repeat_interleave(group, 1),
        attn_mask=visible(rows, len(table) * keys.shape[2], window),
    )
    return seen.squeeze(0).transpose(0, 1)


def visible(positions: Tensor, length: int, window: int | None) -> Tensor:
    """Which of `length` keys each position [N, 1] may look at: [N, length]."""
    keys = torch.arange(length)
    seen = keys <= positions
    return seen if window is None else seen & (keys > positions - window)


def page_tables(tables: Sequence[Sequence[int]]) -> Tensor:
    """[B, P] int32, the shorter ones filled up with any page."""
    most = max(map(len, tables), default=0)
    rows = [[*table, *[0] * (most - len(table))] for table in tables]
    return torch.tensor(rows, dtype=torch.int32).view(len(tables), most)


def gather_pages(cache: Tensor, tables: Tensor) -> Tensor:
    """[B, kv_heads, P * page_tokens, head_dim] of the pages [B, P]."""
    return cache[tables].transpose(1, 2).flatten(2, 3)
