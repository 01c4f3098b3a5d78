"""A step's numbers at addresses that never change, as graphs need them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from services.gpu_worker.kernels.cuda.banks import Shape
from services.gpu_worker.kernels.cuda.beside import Beside
from services.gpu_worker.kernels.cuda.config import Config
from services.gpu_worker.kernels.cuda.deltas import LOW, Chunked, Deltas, chunks_of
from services.gpu_worker.kernels.cuda.layouts import UNBOUNDED, Decodes, Layout
from services.gpu_worker.kernels.cuda.lora import CHUNK
from services.gpu_worker.kernels.device import Segment, Span

FIELDS = 6


@dataclass(frozen=True, slots=True)
class Numbers:
    """Views of one block of numbers, on the device or on the host."""

    fields: Tensor  # [6, rows]: token, position, page, offset, first position seen, one past it
    chunks: Tensor  # [3 * rows], see deltas.Chunked
    tables: Tensor  # [rows, pages], int32


@dataclass(frozen=True, slots=True)
class Room:
    """For so many rows, and so many pages of each one's sequence."""

    rows: int
    pages: int

    @property
    def size(self) -> int:
        """In numbers of 64 bits."""
        return (FIELDS + CHUNK.value) * self._lane + triton.cdiv(self.rows * self.pages, 2)

    def views(self, block: Tensor) -> Numbers:
        fields = block[: FIELDS * self._lane].view(FIELDS, self._lane)
        rest = block[FIELDS * self._lane :]
        tables = rest[CHUNK.value * self._lane :].view(torch.int32)
        return Numbers(
            fields[:, : self.rows],
            rest[: CHUNK.value * self.rows],
            tables[: self.rows * self.pages].view(self.rows, self.pages),
        )

    @property
    def _lane(self) -> int:
        """Even, so that every part begins where loads are wide."""
        return self.rows + self.rows % 2


class FixedInputs:
    """See graphs.FixedInputs. A step's numbers come with one copy, which nothing waits for."""

    def __init__(
        self,
        rows: int,
        tokens: int,
        memory: Tensor,
        config: Config,
        beside: Beside,
        *,
        page_tokens: int,
        window: int | None,
    ) -> None:
        """`tokens`: that a row sees at most."""
        room, place = Room(rows, triton.cdiv(tokens, page_tokens)), memory.device
        self._memory = memory
        self._config = config
        self._beside = beside
        self._page_tokens = page_tokens
        self._window = window or UNBOUNDED
        self._block = torch.zeros(room.size, dtype=torch.long, device=place)
        self._host = torch.zeros(room.size, dtype=torch.long)
        self._here, there = room.views(self._host), room.views(self._block)
        self._tables = self._here.tables.numpy()
        self._written: list[Sequence[int]] = [()] * rows
        self._segments: Sequence[Segment] = ()  # whose tables are told of by address
        self._chunks = there.chunks
        self.tokens, self.positions, self.pages, self.offsets, starts, ends = there.fields
        self.rows = torch.arange(rows, device=place)
        splits = triton.cdiv(tokens, config.split)
        decodes = Decodes(self.rows, starts, ends, there.tables, splits)
        self.layout = Layout(decodes, None, config)
        self.deltas = Deltas()

    def take_adapters(self, shape: Shape, sites: int) -> None:
        """Of that shape or smaller, from now on."""
        self.deltas = Chunked(
            self._chunks.view(-1, CHUNK.value), shape, self._memory, self._config, self._beside,
            sites=sites, rows=len(self.rows), height=LOW,
        )  # fmt: skip

    def write(
        self, tokens: Sequence[int], spans: Sequence[Span], segments: Sequence[Segment]
    ) -> None:
        """See graphs.FixedInputs."""
        size, at = self._page_tokens, [span.position for span in spans]
        fields = [
            tokens,
            at,
            [span.pages[span.position // size] for span in spans],
            [position % size for position in at],
            [max(0, position + 1 - self._window) for position in at],
            [position + 1 for position in at],
        ]
        self._here.fields.copy_(torch.tensor(fields))
        self._segments = segments
        chunks = chunks_of(segments, LOW)
        self._here.chunks.zero_()
        self._here.chunks[: len(chunks)] = torch.tensor(chunks, dtype=torch.long)
        for row, span in enumerate(spans):
            table = span.table(size)
            if table != self._written[row]:  # as a rule it grows by a page every so many steps
                self._tables[row, : len(table)] = table
                self._written[row] = table
        host = self._host.pin_memory() if self._block.is_cuda else self._host
        self._block.copy_(host, non_blocking=True)
