"""Where in pages an adapter lies: every module takes what its true rank needs, no more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from services.core.errors import ResourceExhausted

FUSED: dict[str, tuple[str, ...]] = {
    "qkv": ("q", "k", "v"),
    "o": ("o",),
    "gate_up": ("gate", "up"),
    "down": ("down",),
}
SITES = {fused: number for number, fused in enumerate(FUSED)}

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Factors:
    """One module's: a [rank, in], b [rank, out], of any type; b counts `scaling` times."""

    a: Numbers
    b: Numbers
    scaling: float = 1.0

    def cut(self, first: int, count: int) -> "Factors":
        return Factors(self.a[first : first + count], self.b[first : first + count], self.scaling)


@dataclass(frozen=True, slots=True)
class Part:
    """The shape of one module's share of a block."""

    rank: int
    inputs: int
    width: int
    column_start: int

    @property
    def elements(self) -> int:
        return self.rank * (self.inputs + self.width)


@dataclass(frozen=True, slots=True)
class Block:
    """The modules of one fused linear, all parts' A and then each one's B, and where it starts."""

    site: int
    page: int
    offset: int
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Layout:
    blocks: Sequence[Block]
    layers: int
    pages: int


class Image(Protocol):
    """Pages of float32, zeros at first."""

    def allocate(self, pages: int, elements: int) -> None: ...
    def write(self, page: int, offset: int, values: Numbers) -> None:
        """Elements of a page from `offset` on; `values` is used again afterwards."""
        ...


def lay_out(
    sites: Mapping[str, Factors],
    widths: Mapping[str, int],
    image: Image,
    *,
    layers: int,
    elements: int,
) -> Layout:
    """Writes `sites` to `image`. Both they and output `widths` are by site name ("0.q").

    First fit over the pages begun so far; a block that no page can hold is cut by ranks. Raises
    ResourceExhausted if a page cannot hold even one rank.
    """
    blocks = [
        (layer * len(FUSED) + SITES[fused], parts, factors)
        for layer in range(layers)
        for fused, modules in FUSED.items()
        for parts, factors in _blocks([f"{layer}.{m}" for m in modules], sites, widths, elements)
    ]
    sizes = [sum(part.elements for part in parts) for _, parts, _ in blocks]
    pages, places = first_fit(sizes, elements)
    image.allocate(pages, elements)
    held = np.empty(elements, np.float32)
    for (_, _, factors), (page, offset) in zip(blocks, places, strict=True):
        image.write(page, offset, _filled(held, factors))
    placed = [
        Block(site, page, offset, parts)
        for (site, parts, _), (page, offset) in zip(blocks, places, strict=True)
    ]
    return Layout(placed, layers, pages)


def first_fit(sizes: Sequence[int], room: int) -> tuple[int, list[tuple[int, int]]]:
    """How many pages of so much room it takes, and for each size its page and where it starts."""
    least = min(sizes, default=0)
    pages, places = 0, []
    begun: dict[int, int] = {}  # by page, what is left of it: those that anything fits into
    for size in sizes:
        page = next((page for page, left in begun.items() if left >= size), pages)
        left = begun.get(page, room)
        pages = max(pages, page + 1)
        places.append((page, room - left))
        begun[page] = left - size
        if begun[page] < least:
            del begun[page]
    return pages, places


def _blocks(
    names: Sequence[str], sites: Mapping[str, Factors], widths: Mapping[str, int], elements: int
) -> Iterator[tuple[list[Part], list[Factors]]]:
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
            cut = factors.cut(first, rows)
            yield [_part(cut, column)], [cut]


def _part(factors: Factors, column_start: int) -> Part:
    return Part(factors.a.shape[0], factors.a.shape[1], factors.b.shape[1], column_start)


def _filled(held: Numbers, factors: Sequence[Factors]) -> Numbers:
    """A block's elements, in the beginning of `held`."""
    at = 0
    for module in factors:
        view = held[at : at + module.a.size].reshape(module.a.shape)
        np.copyto(view, module.a)
        at += view.size
    for module in factors:
        view = held[at : at + module.b.size].reshape(module.b.shape)
        np.multiply(module.b, np.float32(module.scaling), out=view, dtype=np.float32)
        at += view.size
    return held[:at]
