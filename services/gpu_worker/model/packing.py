"""Adapters laid out in pages: every module takes what its true rank needs, no more."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.core.errors import ResourceExhausted
from services.gpu_worker.kernels.reference import Piece, Slice

FUSED: dict[str, tuple[str, ...]] = {
    "qkv": ("q", "k", "v"),
    "o": ("o",),
    "gate_up": ("gate", "up"),
    "down": ("down",),
}
SITES = {fused: number for number, fused in enumerate(FUSED)}


@dataclass(frozen=True, slots=True)
class Factors:
    """One module's, with the scaling multiplied into b: a [rank, in], b [rank, out]."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class _Part:
    """The shape of one module's share of a block."""

    rank: int
    inputs: int
    width: int
    column_start: int

    @property
    def elements(self) -> int:
        return self.rank * (self.inputs + self.width)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A block that has a place: where it starts, and its parts."""

    site: int
    page: int
    offset: int
    parts: Sequence[_Part]


@dataclass(frozen=True, slots=True)
class Packing:
    """An adapter as pages of numbers [pages, elements], and where in them its blocks are."""

    image: Tensor
    blocks: Sequence[_Placed]
    layers: int

    def bind(self, memory: Tensor, pages: Sequence[int]) -> list[list[Piece]]:
        """Pieces by site number, as views of the arena's memory [pages, elements]."""
        sites: list[list[Piece]] = [[] for _ in range(self.layers * len(FUSED))]
        for block in self.blocks:
            flat = memory[pages[block.page]][block.offset :]
            sites[block.site].append(_view(flat, block.parts))
        return sites


def pack(
    sites: Mapping[str, Factors],
    widths: Mapping[str, int],
    *,
    layers: int,
    elements: int,
    allocate: Callable[[int, int], Tensor] = torch.zeros,
) -> Packing:
    """`sites` and output `widths` by site name ("0.q"). Raises ResourceExhausted.

    First fit over the pages begun so far; a block that no page can hold is cut by ranks. The image
    is `allocate(pages, elements)`, zeros.
    """
    free: list[int] = []
    placed: list[_Placed] = []
    contents: list[Sequence[Factors]] = []
    for layer in range(layers):
        for fused, modules in FUSED.items():
            number = layer * len(FUSED) + SITES[fused]
            names = [f"{layer}.{module}" for module in modules]
            for parts, modules_of_block in _blocks(names, sites, widths, elements):
                size = sum(part.elements for part in parts)
                page = next((i for i, left in enumerate(free) if left >= size), len(free))
                if page == len(free):
                    free.append(elements)
                placed.append(_Placed(number, page, elements - free[page], parts))
                contents.append(modules_of_block)
                free[page] -= size
    image = allocate(len(free), elements)
    for block, factors in zip(placed, contents, strict=True):
        view = _view(image[block.page][block.offset :], block.parts)
        torch.cat([module.a for module in factors], out=view.down)
        for module, piece in zip(factors, view.slices, strict=True):
            piece.up.copy_(module.b)
    return Packing(image, placed, layers)


def _blocks(
    names: Sequence[str], sites: Mapping[str, Factors], widths: Mapping[str, int], elements: int
) -> Iterator[tuple[list[_Part], list[Factors]]]:
    """The modules of one fused linear as one block, or as many as it takes."""
    found, column = [], 0
    for name in names:
        if name in sites:
            found.append((sites[name], column))
        column += widths[name]
    parts = [_part(factors, column) for factors, column in found]
    if sum(part.elements for part in parts) <= elements:
        if parts:
            yield parts, [factors for factors, _ in found]
        return
    for factors, column in found:
        rows = elements // (factors.a.shape[1] + factors.b.shape[1])
        if rows == 0:
            raise ResourceExhausted("one rank of the adapter is larger than a page")
        for first in range(0, factors.a.shape[0], rows):
            cut = Factors(factors.a[first : first + rows], factors.b[first : first + rows])
            yield [_part(cut, column)], [cut]


def _part(factors: Factors, column_start: int) -> _Part:
    return _Part(factors.a.shape[0], factors.a.shape[1], factors.b.shape[1], column_start)


def _view(flat: Tensor, parts: Sequence[_Part]) -> Piece:
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
