"""What adapters add where A and B are dealt out to a group, and the products of the base beside.

S-LoRA's tensor parallelism (arXiv 2311.03285, section 6): where outputs are dealt out, each member
makes the hidden values of its rows of A, everybody gets all of them, and adds their product with
its columns of B; where inputs are, everybody's hidden values are summed, each member adds its
columns to its part of the base's sum, and the base's own sum makes them known. However many
adapters run, each linear has one exchange, of no more than they need, while the base multiplies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from services.gpu_worker.kernels import device
from services.gpu_worker.kernels.device import Device, Linear, Segment
from services.gpu_worker.kernels.reference import Piece
from services.gpu_worker.model.parallel.collectives import Collectives, Matter


class Products(Protocol):
    """Products of a group with the base's weights and with its adapters."""

    def column(self, linear: Linear, x: Tensor, deltas: device.Deltas, site: int) -> Tensor:
        """The member's part of the outputs; x is everybody's."""
        ...

    def row(self, linear: Linear, x: Tensor, deltas: device.Deltas, site: int) -> Tensor:
        """Everybody's, of the member's part x of the inputs."""
        ...


@dataclass(frozen=True, slots=True)
class OwnDeltas:
    """Products: of adapters whose parts need nothing of each other."""

    collectives: Collectives

    def column(self, linear: Linear, x: Tensor, deltas: device.Deltas, site: int) -> Tensor:
        return linear(x, deltas)

    def row(self, linear: Linear, x: Tensor, deltas: device.Deltas, site: int) -> Tensor:
        y = linear(x, deltas)
        self.collectives.sum(Matter.BASE, y).wait()
        return y


@dataclass(frozen=True, slots=True)
class SharedDeltas:
    """Products: of adapters of which nobody has anything twice."""

    collectives: Collectives

    def column(self, linear: Linear, x: Tensor, deltas: device.Deltas, site: int) -> Tensor:
        terms = _terms(deltas, site)
        if not terms:
            return linear(x)
        coming = self.collectives.gather(Matter.LORA, _hidden(x, terms))
        y = linear(x)
        parts = coming.wait().split([term.numbers for term in terms], 1)
        for term, part in zip(terms, parts, strict=True):
            # [members, rows, ranks of a member] -> [rows, ranks of a member, members]
            h = part.unflatten(1, (term.count, -1)).permute(1, 2, 0)
            for each in term.piece.slices:
                width = each.up.shape[1] // self.collectives.member.of
                columns = slice(each.column_start, each.column_start + width)
                own = h[:, each.rank_start : each.rank_end].reshape(term.count, -1)
                y[term.rows, columns].addmm_(own, each.up.view(-1, width))
        return y

    def row(self, linear: Linear, x: Tensor, deltas: device.Deltas, site: int) -> Tensor:
        terms = _terms(deltas, site)
        hidden = _hidden(x, terms)
        coming = self.collectives.sum(Matter.LORA, hidden) if terms else None
        y = linear(x)
        if coming is not None:
            coming.wait()
            own = self.collectives.member.part(y.shape[1])
            parts = hidden.split([term.numbers for term in terms])
            for term, part in zip(terms, parts, strict=True):
                h = part.view(term.count, -1)
                for each in term.piece.slices:
                    y[term.rows, own].addmm_(h[:, each.rank_start : each.rank_end], each.up)
        self.collectives.sum(Matter.BASE, y).wait()
        return y


@dataclass(frozen=True, slots=True)
class _Term:
    """Rows of one adapter, and a piece of what it has at a site."""

    rows: slice
    piece: Piece

    @property
    def count(self) -> int:
        return int(self.rows.stop - self.rows.start)

    @property
    def numbers(self) -> int:
        """Hidden values that a member makes."""
        return self.count * len(self.piece.down)


def _terms(deltas: device.Deltas, site: int) -> list[_Term]:
    assert isinstance(deltas, _Deltas)
    return [
        _Term(slice(segment.first, segment.last), piece)
        for segment in deltas.segments
        for piece in _sites(segment.bank)[site]
    ]


def _hidden(x: Tensor, terms: Sequence[_Term]) -> Tensor:
    """x A^T of every term, one behind the other: [numbers]."""
    sizes = [term.numbers for term in terms]
    hidden = x.new_empty(sum(sizes))
    for term, part in zip(terms, hidden.split(sizes), strict=True):
        torch.mm(x[term.rows], term.piece.down.T, out=part.view(term.count, -1))
    return hidden


@dataclass(frozen=True, slots=True)
class _Bank:
    sites: Sequence[Sequence[Piece]]


@dataclass(frozen=True, slots=True)
class _Deltas:
    segments: Sequence[Segment]


def _sites(bank: device.Bank) -> Sequence[Sequence[Piece]]:
    assert isinstance(bank, _Bank)
    return bank.sites


class _Sharing:
    """Another device, with adapters as SharedDeltas takes them."""

    def __init__(self, own: Device) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def bank(self, sites: Sequence[Sequence[Piece]], memory: Tensor) -> _Bank:
        return _Bank(sites)

    def deltas(self, segments: Sequence[Segment], rows: int) -> _Deltas:
        return _Deltas(segments)


def sharing(own: Device) -> Device:
    """See _Sharing."""
    return cast(Device, _Sharing(own))
