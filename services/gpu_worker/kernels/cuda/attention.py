"""Attention straight from pages: decode split over the context, prefill in blocks of queries.

Softmax is taken block by block (Milakov and Gimelshein, arXiv 1805.02867; FlashAttention, arXiv
2205.14135). The context is split at fixed positions, however many sequences there are, so a
sequence's answer does not depend on its company (Flash-Decoding, with batch invariance).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from services.gpu_worker.kernels.cuda.config import Config
from services.gpu_worker.kernels.cuda.dot import dot
from services.gpu_worker.kernels.cuda.layouts import Decodes, Layout, Prefills


def attend(q: Tensor, keys: Tensor, values: Tensor, layout: Layout) -> Tensor:
    """See device.Device.attention."""
    out = torch.empty_like(q)
    if layout.decodes is not None:
        _attend_decodes(q, keys, values, layout.decodes, out, layout.config)
    if layout.prefills is not None:
        _attend_prefills(q, keys, values, layout.prefills, out, layout.config)
    return out


def _attend_decodes(
    q: Tensor, keys: Tensor, values: Tensor, decodes: Decodes, out: Tensor, config: Config
) -> None:
    _, heads, head = q.shape
    kv_heads, page_tokens = keys.shape[1], keys.shape[2]
    count = len(decodes.rows)
    partial = torch.empty(count, heads, decodes.splits, head, device=q.device)
    weights = torch.empty(count, heads, decodes.splits, device=q.device)
    head_block = max(16, triton.next_power_of_2(head))
    decode_split[(count, kv_heads, decodes.splits)](
        q, keys, values, decodes.tables, decodes.rows, decodes.starts, decodes.ends,
        partial, weights, q.stride(0), keys.stride(0), decodes.tables.stride(0), decodes.splits,
        head**-0.5, KV_HEADS=kv_heads, GROUP=heads // kv_heads,
        GROUP_BLOCK=max(16, triton.next_power_of_2(heads // kv_heads)),
        HEAD=head, HEAD_BLOCK=head_block, PAGE=page_tokens, SPLIT=config.split,
        KEYS=config.decode.block, **config.decode.options,
    )  # fmt: skip
    decode_join[(count, heads)](
        partial, weights, out, decodes.rows, decodes.starts, decodes.ends,
        out.stride(0), decodes.splits, HEADS=heads, HEAD=head, HEAD_BLOCK=head_block,
        SPLIT=config.split,
    )  # fmt: skip


def _attend_prefills(
    q: Tensor, keys: Tensor, values: Tensor, prefills: Prefills, out: Tensor, config: Config
) -> None:
    _, heads, head = q.shape
    kv_heads, page_tokens = keys.shape[1], keys.shape[2]
    prefill[(len(prefills.blocks), heads)](
        q, keys, values, out, prefills.sequences, prefills.tables, prefills.blocks,
        q.stride(0), out.stride(0), keys.stride(0), prefills.tables.stride(0), prefills.window,
        head**-0.5, GROUP=heads // kv_heads,
        HEAD=head, HEAD_BLOCK=max(16, triton.next_power_of_2(head)), PAGE=page_tokens,
        QUERIES=config.queries, KEYS=config.prefill.block, **config.prefill.options,
    )  # fmt: skip


@triton.jit
def fold(
    query, keys, values, at, inside, sees, scale, most, total, sums,
    HEAD: tl.constexpr, HEAD_BLOCK: tl.constexpr,
):  # fmt: skip
    """The running maximum, sum and weighted values of [N] queries, with [K] more keys.

    at: where each key starts, if it is inside; sees: [N, K] or [1, K].
    """
    d = tl.arange(0, HEAD_BLOCK)
    key = tl.load(
        keys + at[None, :] + d[:, None], mask=inside[None, :] & (d < HEAD)[:, None], other=0.0
    )
    score = tl.where(sees, dot(query, key) * scale, float("-inf"))
    larger = tl.maximum(most, tl.max(score, 1))
    # A row whose window begins after these keys has seen nothing yet.
    base = tl.where(larger == float("-inf"), 0.0, larger)
    weight = tl.exp(score - base[:, None])
    shrunk = tl.exp(most - base)
    value = tl.load(
        values + at[:, None] + d[None, :], mask=inside[:, None] & (d < HEAD)[None, :], other=0.0
    )
    seen = dot(weight.to(value.dtype), value)
    return larger, total * shrunk + tl.sum(weight, 1), sums * shrunk[:, None] + seen


@triton.jit(do_not_specialize=["table_row", "splits"])
def decode_split(
    q, keys, values, tables, rows, starts, ends, partial, weights,
    q_row, page_stride, table_row, splits, scale,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_BLOCK: tl.constexpr,
    HEAD: tl.constexpr, HEAD_BLOCK: tl.constexpr, PAGE: tl.constexpr,
    SPLIT: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Grid: sequences, key heads, splits. partial: [B, heads, splits, head]; weights: its logs."""
    sequence = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    low = tl.maximum(tl.load(starts + sequence), split * SPLIT)
    high = tl.minimum(tl.load(ends + sequence), split * SPLIT + SPLIT)
    if low >= high:
        return
    group = tl.arange(0, GROUP_BLOCK)
    d = tl.arange(0, HEAD_BLOCK)
    has = (group < GROUP)[:, None] & (d < HEAD)[None, :]
    head = kv_head * GROUP + group
    query = tl.load(
        q + tl.load(rows + sequence) * q_row + head[:, None] * HEAD + d[None, :],
        mask=has, other=0.0,
    )  # fmt: skip
    most = tl.full((GROUP_BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP_BLOCK,), tl.float32)
    sums = tl.zeros((GROUP_BLOCK, HEAD_BLOCK), tl.float32)
    for start in range(low // KEYS * KEYS, high, KEYS):
        position = start + tl.arange(0, KEYS)
        inside = (position >= low) & (position < high)
        page = tl.load(tables + sequence * table_row + position // PAGE, mask=inside, other=0)
        at = page.to(tl.int64) * page_stride + (kv_head * PAGE + position % PAGE) * HEAD
        most, total, sums = fold(
            query, keys, values, at, inside, inside[None, :], scale, most, total, sums,
            HEAD, HEAD_BLOCK,
        )  # fmt: skip
    to = (sequence * KV_HEADS * GROUP + head) * splits + split
    tl.store(partial + to[:, None] * HEAD + d[None, :], sums / total[:, None], mask=has)
    tl.store(weights + to, most + tl.log(total), mask=group < GROUP)


@triton.jit(do_not_specialize=["splits"])
def decode_join(
    partial, weights, out, rows, starts, ends, out_row, splits,
    HEADS: tl.constexpr, HEAD: tl.constexpr, HEAD_BLOCK: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Grid: sequences, heads. Only splits that a sequence sees were written."""
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    d = tl.arange(0, HEAD_BLOCK)
    first = tl.load(starts + sequence) // SPLIT
    end = (tl.load(ends + sequence) + SPLIT - 1) // SPLIT
    at = (sequence * HEADS + head) * splits
    most = tl.load(weights + at + first)
    total = most * 0 + 1.0
    sums = tl.load(partial + (at + first) * HEAD + d, mask=d < HEAD, other=0.0)
    for split in range(first + 1, end):
        weight = tl.load(weights + at + split)
        larger = tl.maximum(most, weight)
        shrunk = tl.exp(most - larger)
        grown = tl.exp(weight - larger)
        part = tl.load(partial + (at + split) * HEAD + d, mask=d < HEAD, other=0.0)
        sums = sums * shrunk + part * grown
        total = total * shrunk + grown
        most = larger
    to = out + tl.load(rows + sequence) * out_row + head * HEAD + d
    tl.store(to, (sums / total).to(out.dtype.element_ty), mask=d < HEAD)


@triton.jit(do_not_specialize=["table_row", "window"])
def prefill(
    q, keys, values, out, sequences, tables, blocks,
    q_row, out_row, page_stride, table_row, window, scale,
    GROUP: tl.constexpr, HEAD: tl.constexpr, HEAD_BLOCK: tl.constexpr, PAGE: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Grid: blocks of queries, heads. Causal, within the window."""
    block = blocks + tl.program_id(0) * 2
    head = tl.program_id(1)
    sequence = tl.load(block)
    first = tl.load(block + 1)
    row = tl.load(sequences + sequence * 3)
    count = tl.load(sequences + sequence * 3 + 1)
    zeroth = tl.load(sequences + sequence * 3 + 2)
    query_at = first + tl.arange(0, QUERIES)
    d = tl.arange(0, HEAD_BLOCK)
    has = (query_at < count)[:, None] & (d < HEAD)[None, :]
    rows = (row + query_at).to(tl.int64)
    query = tl.load(q + rows[:, None] * q_row + head * HEAD + d[None, :], mask=has, other=0.0)
    own = zeroth + query_at
    low = tl.maximum(zeroth + first - window + 1, 0)
    high = zeroth + tl.minimum(first + QUERIES, count)
    most = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sums = tl.zeros((QUERIES, HEAD_BLOCK), tl.float32)
    for start in range(low // KEYS * KEYS, high, KEYS):
        position = start + tl.arange(0, KEYS)
        inside = (position >= low) & (position < high)
        page = tl.load(tables + sequence * table_row + position // PAGE, mask=inside, other=0)
        at = page.to(tl.int64) * page_stride + (head // GROUP * PAGE + position % PAGE) * HEAD
        sees = (position[None, :] <= own[:, None]) & (position[None, :] > own[:, None] - window)
        most, total, sums = fold(
            query, keys, values, at, inside, sees & inside[None, :], scale, most, total, sums,
            HEAD, HEAD_BLOCK,
        )  # fmt: skip
    total = tl.where(total > 0, total, 1.0)  # rows beyond the last see nothing
    to = out + rows[:, None] * out_row + head * HEAD + d[None, :]
    tl.store(to, (sums / total[:, None]).to(out.dtype.element_ty), mask=has)
