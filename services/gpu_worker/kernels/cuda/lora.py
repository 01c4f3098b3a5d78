"""What many adapters add to one linear, straight from their pages, in two launches.

S-LoRA's heterogeneous batching (arXiv 2311.03285, section 5) with pages of any size: shrink makes
h = x A^T, its sum split over the inputs so that a small batch fills the device; expand adds up the
parts of h and adds h B to y. No atomics: every number of h and y has one writer, so results do not
depend on the order of the blocks. Rows of the base model are in no chunk and cost nothing.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from services.gpu_worker.kernels import device
from services.gpu_worker.kernels.cuda.dot import dot
from services.gpu_worker.kernels.cuda.transfer import integers
from services.gpu_worker.kernels.device import Segment
from services.gpu_worker.kernels.reference import Piece

TILE = tl.constexpr(16)  # ranks, the least that tensor cores take
RECORD = tl.constexpr(5)
SLICES = tl.constexpr(3)  # modules that one linear fuses, at most
CHUNK = tl.constexpr(3)
ALIGNED = 16  # elements: what one load moves


class Bank:
    """One adapter as a table on the device, int64: [3 * sites + 1] where each slice of each site
    has its first tile, then a record a tile: A's rows and B's rows (elements from the start of the
    memory), ranks, first column, columns. A tile is at most 16 ranks of one module.
    """

    def __init__(self, sites: Sequence[Sequence[Piece]], memory: Tensor) -> None:
        by_slice = [_tiles_by_slice(site, memory) for site in sites]
        groups = [group for site in by_slice for group in site]
        records = [record for group in groups for record in group]
        starts = accumulate((len(group) for group in groups), initial=0)
        self.memory = memory
        self.sites = len(sites)
        self.most_tiles = max((sum(map(len, site)) for site in by_slice), default=0)
        self.most_columns = max((record[4] for record in records), default=0)
        self.is_aligned = all(
            number % ALIGNED == 0 for record in records for number in (*record[:2], *record[3:])
        )
        flat = [*starts, *(number for record in records for number in record)]
        self._table = integers(flat, memory.device)

    @property
    def address(self) -> int:
        return self._table.data_ptr()


class Deltas:
    """The flat list of chunks (first row, rows, the adapter's table), and room for h."""

    def __init__(self, segments: Sequence[Segment], rows: int, place: torch.device) -> None:
        banks = [_ours(segment.bank) for segment in segments]
        longest = max((segment.last - segment.first for segment in segments), default=0)
        self._height = 16 if longest <= 16 else 64
        chunks = [
            (first, min(self._height, segment.last - first), bank.address)
            for segment, bank in zip(segments, banks, strict=True)
            for first in range(segment.first, segment.last, self._height)
        ]
        self._banks = banks  # the device has their addresses
        self._count = len(chunks)
        self._chunks = integers([number for chunk in chunks for number in chunk], place)
        self._most_tiles = max((bank.most_tiles for bank in banks), default=0)
        self._most_columns = max((bank.most_columns for bank in banks), default=0)
        self._split = 8 if rows <= 64 else 4 if rows <= 512 else 1
        self._align = ALIGNED if all(bank.is_aligned for bank in banks) else 1
        width = self._most_tiles * TILE.value
        self._h = torch.empty(self._split, rows, width, device=place) if chunks else None

    def add(self, y: Tensor, x: Tensor, site: int) -> None:
        """y: [tokens, out], changed in place; x: [tokens, in]."""
        if self._h is None or not self._most_tiles:
            return
        memory, sites = self._banks[0].memory, self._banks[0].sites
        inputs = x.shape[1]
        depth = min(128, triton.next_power_of_2(inputs))
        shrink[(self._count, self._most_tiles, self._split)](
            x, memory, self._chunks, self._h, site, x.stride(0), *self._h.stride()[:2],
            sites, inputs, triton.cdiv(inputs, depth * self._split),
            HEIGHT=self._height, DEPTH=depth, ALIGN=self._align,
        )  # fmt: skip
        width = min(128, max(16, triton.next_power_of_2(self._most_columns)))
        expand[(self._count, triton.cdiv(self._most_columns, width), SLICES.value)](
            y, memory, self._chunks, self._h, site, y.stride(0), *self._h.stride()[:2],
            sites, self._split, HEIGHT=self._height, WIDTH=width, ALIGN=self._align,
        )  # fmt: skip


def _ours(bank: device.Bank) -> Bank:
    assert isinstance(bank, Bank)
    return bank


def _tiles_by_slice(site: Sequence[Piece], memory: Tensor) -> list[list[tuple[int, ...]]]:
    """A site's records, by the module that they add to."""
    starts = sorted({part.column_start for piece in site for part in piece.slices})
    groups: list[list[tuple[int, ...]]] = [[] for _ in range(SLICES.value)]
    for piece in site:
        inputs, down = piece.down.shape[1], _element(piece.down, memory)
        for part in piece.slices:
            width, up = part.up.shape[1], _element(part.up, memory)
            for rank in range(part.rank_start, part.rank_end, TILE.value):
                groups[starts.index(part.column_start)].append(
                    (
                        down + rank * inputs,
                        up + (rank - part.rank_start) * width,
                        min(TILE.value, part.rank_end - rank),
                        part.column_start,
                        width,
                    )
                )
    return groups


def _element(view: Tensor, memory: Tensor) -> int:
    """Where in the memory a view starts."""
    return (view.data_ptr() - memory.data_ptr()) // memory.element_size()


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
