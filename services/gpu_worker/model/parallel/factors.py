"""Adapters cut into the parts of a group's members. Without torch: fetching needs none."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from services.core.errors import FailedPrecondition
from services.gpu_worker.model.layout import Factors, Image, Layout, Numbers, lay_out
from services.gpu_worker.model.parallel.member import COLUMNS, Member, Partition
from services.gpu_worker.model.unpacking import Unpacker


@dataclass(frozen=True, slots=True)
class GroupUnpacker(Unpacker):
    """Lays out what every member gets: it is the same for all but for the numbers themselves.

    A row of the image is a page of each member, one behind the other. `widths` and `elements` are
    those of a member.
    """

    members: int
    partition: Partition

    def lay_out(self, sites: Mapping[str, Factors], image: Image, layers: int) -> Layout:
        for number in range(self.members):
            member = Member(number, self.members)
            own = {site: cut(site, each, member, self.partition) for site, each in sites.items()}
            lane = _Lane(image, member)
            found = lay_out(own, self.widths, lane, layers=layers, elements=self.elements)
        return found


class _Lane:
    """A layout.Image: one member's part of every page of another."""

    def __init__(self, image: Image, member: Member) -> None:
        self._image = image
        self._member = member
        self._elements = 0

    def allocate(self, pages: int, elements: int) -> None:
        self._elements = elements
        if self._member.number == 0:
            self._image.allocate(pages, elements * self._member.of)

    def write(self, page: int, offset: int, values: Numbers) -> None:
        self._image.write(page, self._member.number * self._elements + offset, values)


def cut(site: str, factors: Factors, member: Member, partition: Partition) -> Factors:
    """A member's part of what an adapter has at a site ("0.q"). Raises FailedPrecondition."""
    is_column = site.rpartition(".")[2] in COLUMNS
    if partition is Partition.BLOCK_DIAGONAL:
        _require_blocks(site, factors.b if is_column else factors.a, member.of)
        ranks = member.part(len(factors.a))
        factors = Factors(factors.a[ranks], factors.b[ranks], factors.scaling)
    if not is_column:
        a, b = factors.a[:, member.part(factors.a.shape[1])], factors.b
        if partition is Partition.SHARDED:
            b = b[:, member.part(b.shape[1])]
        return Factors(a, b, factors.scaling)
    b = factors.b[:, member.part(factors.b.shape[1])]
    if partition is Partition.SHARDED:
        return _dealt(Factors(factors.a, b, factors.scaling), member)
    return Factors(factors.a, b, factors.scaling)


def _dealt(factors: Factors, member: Member) -> Factors:
    """Rows of A by turns, and all of B, with as many of its rows in each as there are members: so
    that what the members have made of A's rows, row by row, meets all of B.
    """
    missing = -len(factors.a) % member.of
    a, b = (np.pad(each, ((0, missing), (0, 0))) for each in (factors.a, factors.b))
    own = a[member.number :: member.of]
    return Factors(own, b.reshape(len(own), -1), factors.scaling)


def _require_blocks(site: str, matrix: Numbers, members: int) -> None:
    """[rank, ...]: each block of ranks is about its own block of columns."""
    if len(matrix) % members == 0:
        blocks = matrix.reshape(members, len(matrix) // members, members, -1)
        pairs = ((one, other) for one in range(members) for other in range(members))
        if not any(blocks[one, :, other].any() for one, other in pairs if one != other):
            return
    raise FailedPrecondition(
        f"{site} is not block-diagonal over {members} processes, as "
        "GPU_WORKER_TENSOR_PARALLEL_LORA=block_diagonal needs"
    )
