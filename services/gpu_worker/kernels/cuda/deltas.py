"""What the adapters of a step add to its linears: x A^T beside the base's product, then B."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from services.gpu_worker.kernels.cuda.banks import Shape, own
from services.gpu_worker.kernels.cuda.beside import Beside
from services.gpu_worker.kernels.cuda.config import Config
from services.gpu_worker.kernels.cuda.lora import CHUNK, SLICES, TILE, expand, shrink
from services.gpu_worker.kernels.device import Segment
from services.gpu_worker.kernels.reference import Piece
from services.gpu_worker.kernels.transfer import integers

LOW, HIGH = 16, 64  # rows of a chunk: of decodes, of prefills


class Deltas:
    """See device.Deltas. Of rows that are all the base model's, which cost nothing; all others are
    kinds of it. Every linear calls `shrink`, then `expand`."""

    def shrink(self, x: Tensor, site: int) -> None:
        """x: [tokens, in]. May come before the base's product."""

    def expand(self, y: Tensor, site: int) -> None:
        """y: [tokens, out], changed in place."""


class Chunked(Deltas):
    """By lora.py's kernels, over a flat list of chunks of neighbouring rows."""

    def __init__(
        self,
        chunks: Tensor,
        shape: Shape,
        memory: Tensor,
        config: Config,
        beside: Beside,
        *,
        sites: int,
        rows: int,
        height: int,
        segments: Sequence[Segment] = (),
    ) -> None:
        """`chunks`: [N, 3], the first row, how many, where the adapter's table is. One of no rows
        does nothing; `height` is the most that one has. Tables of `segments` stay as long as this;
        those of others are the caller's to keep."""
        self._chunks = chunks
        self._segments = segments
        self._shape = shape
        self._memory = memory
        self._sites = sites
        self._height = height
        self._config = config
        self._beside = beside
        parts = config.parts if rows <= 64 else max(1, config.parts // 2) if rows <= 512 else 1
        self._h = torch.empty(parts, rows, shape.tiles * TILE.value, device=memory.device)

    def shrink(self, x: Tensor, site: int) -> None:
        inputs, parts, how = x.shape[1], len(self._h), self._config.shrink
        depth = min(how.block, triton.next_power_of_2(inputs))
        with self._beside.work():
            shrink[(len(self._chunks), self._shape.tiles, parts)](
                x, self._memory, self._chunks, self._h, site, x.stride(0), *self._h.stride()[:2],
                self._sites, inputs, triton.cdiv(inputs, depth * parts),
                HEIGHT=self._height, DEPTH=depth, ALIGN=self._shape.align, **how.options,
            )  # fmt: skip

    def expand(self, y: Tensor, site: int) -> None:
        self._beside.join()
        how = self._config.expand
        width = min(how.block, max(16, triton.next_power_of_2(self._shape.columns)))
        blocks = triton.cdiv(self._shape.columns, width)
        expand[(len(self._chunks), blocks, SLICES.value)](
            y, self._memory, self._chunks, self._h, site, y.stride(0), *self._h.stride()[:2],
            self._sites, len(self._h), HEIGHT=self._height, WIDTH=width, ALIGN=self._shape.align,
            **how.options,
        )  # fmt: skip


class Alone(Deltas):
    """Of one adapter that all rows are of: torch's own products, with A and B where they lie."""

    def __init__(self, sites: Sequence[Sequence[Piece]]) -> None:
        self._sites = sites
        self._hidden: list[Tensor] = []

    def shrink(self, x: Tensor, site: int) -> None:
        self._hidden = [x @ piece.down.T for piece in self._sites[site]]

    def expand(self, y: Tensor, site: int) -> None:
        for piece, hidden in zip(self._sites[site], self._hidden, strict=True):
            for part in piece.slices:
                y[:, part.column_start : part.column_end].addmm_(
                    hidden[:, part.rank_start : part.rank_end], part.up
                )


def deltas_of(
    segments: Sequence[Segment],
    rows: int,
    place: torch.device,
    config: Config,
    beside: Beside,
) -> Deltas:
    """Of one step."""
    shape = shape_of(segments)
    if not shape.tiles:
        return Deltas()
    is_alone = len(segments) == 1 and segments[0].last - segments[0].first == rows
    if is_alone and rows >= config.alone_rows:
        return Alone(own(segments[0].bank).pieces)
    longest = max(segment.last - segment.first for segment in segments)
    height = LOW if longest <= LOW else HIGH
    chunks = integers(chunks_of(segments, height), place).view(-1, CHUNK.value)
    bank = own(segments[0].bank)
    return Chunked(
        chunks,
        shape,
        bank.memory,
        config,
        beside,
        sites=len(bank.pieces),
        rows=rows,
        height=height,
        segments=segments,
    )


def shape_of(segments: Sequence[Segment]) -> Shape:
    return Shape().joined(own(segment.bank).shape for segment in segments)


def chunks_of(segments: Sequence[Segment], height: int) -> list[int]:
    """One behind the other, see Chunked. Tables are told of by address: somebody must keep them."""
    return [
        number
        for segment in segments
        for first in range(segment.first, segment.last, height)
        for number in (first, min(height, segment.last - first), own(segment.bank).address)
    ]
