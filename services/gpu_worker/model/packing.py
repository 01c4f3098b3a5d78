"""Adapters as pages that a device takes, and as pieces of an arena's memory once it has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.gpu_worker.kernels.reference import Piece, Slice
from services.gpu_worker.model.layout import FUSED, Factors, Layout, Numbers, Part, lay_out


@dataclass(frozen=True, slots=True)
class Packing:
    """An adapter as pages of numbers [pages, elements], and where in them its blocks are."""

    image: Tensor
    layout: Layout

    def bind(self, memory: Tensor, pages: Sequence[int]) -> list[list[Piece]]:
        """Pieces by site number, as views of the arena's memory [pages, elements]."""
        sites: list[list[Piece]] = [[] for _ in range(self.layout.layers * len(FUSED))]
        for block in self.layout.blocks:
            flat = memory[pages[block.page]][block.offset :]
            sites[block.site].append(_view(flat, block.parts))
        return sites


class HeldImage:
    """A layout.Image in this process's memory."""

    def __init__(self) -> None:
        self.values: Numbers = np.empty((0, 0), np.float32)

    def allocate(self, pages: int, elements: int) -> None:
        self.values = np.zeros((pages, elements), np.float32)

    def write(self, page: int, offset: int, values: Numbers) -> None:
        self.values[page, offset : offset + values.size] = values


def pack(
    sites: Mapping[str, Factors], widths: Mapping[str, int], *, layers: int, elements: int
) -> Packing:
    """See lay_out."""
    image = HeldImage()
    layout = lay_out(sites, widths, image, layers=layers, elements=elements)
    return Packing(torch.from_numpy(image.values), layout)


def _view(flat: Tensor, parts: Sequence[Part]) -> Piece:
    """All parts' A, then each one's B."""
    inputs = parts[0].inputs
    at = sum(part.rank for part in parts) * inputs
    down = flat[:at].view(-1, inputs)
    slices, rank = [], 0
    for part in parts:
        up = flat[at : at + part.rank * part.width].view(part.rank, part.width)
        columns = (part.column_start, part.column_start + part.width)
        slices.append(Slice(rank, rank + part.rank, *columns, up))
        rank, at = rank + part.rank, at + part.rank * part.width
    return Piece(down, slices)
