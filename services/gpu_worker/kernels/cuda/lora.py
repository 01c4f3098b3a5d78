"""What many adapters add to one linear, straight from their pages, in two launches.

S-LoRA's heterogeneous batching (arXiv 2311.03285, section 5) with pages of any size: shrink makes
h = x A^T, its sum split over the inputs so that a small batch fills the device; expand adds up the
parts of h and adds h B to y. No atomics: every number of h and y has one writer, so results do not
depend on the order of the blocks. Rows of the base model are in no chunk and cost nothing.
"""

import triton
import triton.language as tl

from services.gpu_worker.kernels.cuda.dot import dot

TILE = tl.constexpr(16)  # ranks, the least that tensor cores take
RECORD = tl.constexpr(5)
SLICES = tl.constexpr(3)  # modules that one linear fuses, at most
CHUNK = tl.constexpr(3)
ALIGNED = 16  # elements: what one load moves


@triton.jit(do_not_specialize=["site"])
def shrink(
    x, memory, chunks, h, site, x_stride, h_part, h_row,
    SITES: tl.constexpr, INPUTS: tl.constexpr, STEPS: tl.constexpr,
    HEIGHT: tl.constexpr, DEPTH: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Grid: chunks, most tiles of a site, parts of the sum. h: [parts, tokens, 16 * tiles]."""
    chunk = chunks + tl.program_id(0) * CHUNK
    tile = tl.program_id(1)
    part = tl.program_id(2)
    count = tl.load(chunk + 1)
    if count == 0:  # filled up to a fixed number of chunks
        return
    table = tl.load(chunk + 2).to(tl.pointer_type(tl.int64))
    first = tl.load(table + site * SLICES)
    if first + tile >= tl.load(table + site * SLICES + SLICES):
        return
    record = table + SITES * SLICES + 1 + (first + tile) * RECORD
    down = tl.multiple_of(tl.load(record), ALIGN)
    ranks = tl.load(record + 2)
    row = tl.load(chunk) + tl.arange(0, HEIGHT)
    has_row = tl.arange(0, HEIGHT) < count
    rank = tl.arange(0, TILE)
    sums = tl.zeros((HEIGHT, TILE), tl.float32)
    for step in range(STEPS):
        at = (part * STEPS + step) * DEPTH + tl.arange(0, DEPTH)
        inside = at < INPUTS
        inputs = tl.load(
            x + row[:, None] * x_stride + at[None, :],
            mask=has_row[:, None] & inside[None, :], other=0.0,
        )  # fmt: skip
        a = tl.load(
            memory + down + rank[None, :] * INPUTS + at[:, None],
            mask=(rank[None, :] < ranks) & inside[:, None], other=0.0,
        )  # fmt: skip
        sums += dot(inputs, a)
    to = h + part * h_part + row[:, None] * h_row + tile * TILE + rank[None, :]
    tl.store(to, sums, mask=has_row[:, None])


@triton.jit(do_not_specialize=["site"])
def expand(
    y, memory, chunks, h, site, y_stride, h_part, h_row,
    SITES: tl.constexpr, PARTS: tl.constexpr,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Grid: chunks, blocks of columns, slices. y += (sum of the parts of h) B."""
    chunk = chunks + tl.program_id(0) * CHUNK
    block = tl.program_id(1)
    part_of_linear = site * SLICES + tl.program_id(2)
    count = tl.load(chunk + 1)
    if count == 0:
        return
    table = tl.load(chunk + 2).to(tl.pointer_type(tl.int64))
    first = tl.load(table + part_of_linear)
    end = tl.load(table + part_of_linear + 1)
    if first == end:
        return
    records = table + SITES * SLICES + 1
    columns = tl.multiple_of(tl.load(records + first * RECORD + 4), ALIGN)
    if block * WIDTH >= columns:
        return
    zeroth = tl.load(table + site * SLICES)
    row = tl.load(chunk) + tl.arange(0, HEIGHT)
    has_row = tl.arange(0, HEIGHT) < count
    rank = tl.arange(0, TILE)
    column = block * WIDTH + tl.arange(0, WIDTH)
    inside = column < columns
    sums = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for tile in range(first, end):
        record = records + tile * RECORD
        up = tl.multiple_of(tl.load(record + 1), ALIGN)
        ranks = tl.load(record + 2)
        hidden = tl.zeros((HEIGHT, TILE), tl.float32)
        for part in tl.static_range(PARTS):
            hidden += tl.load(
                h + part * h_part + row[:, None] * h_row + (tile - zeroth) * TILE + rank[None, :],
                mask=has_row[:, None], other=0.0,
            )  # fmt: skip
        b = tl.load(
            memory + up + rank[:, None] * columns + column[None, :],
            mask=(rank[:, None] < ranks) & inside[None, :], other=0.0,
        )  # fmt: skip
        sums += dot(hidden.to(b.dtype), b)
    start = tl.multiple_of(tl.load(records + first * RECORD + 3), ALIGN)
    to = y + row[:, None] * y_stride + start + column[None, :]
    mask = has_row[:, None] & inside[None, :]
    tl.store(to, (tl.load(to, mask=mask, other=0.0) + sums).to(y.dtype.element_ty), mask=mask)
