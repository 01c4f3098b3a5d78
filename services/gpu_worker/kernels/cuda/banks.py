"""Adapters as tables that lora.py's kernels find their pages by."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from services.gpu_worker.kernels import device
from services.gpu_worker.kernels.cuda.lora import ALIGNED, SLICES, TILE
from services.gpu_worker.kernels.reference import Piece
from services.gpu_worker.kernels.transfer import integers


@dataclass(frozen=True, slots=True)
class Shape:
    """What launches have to be large enough for, and what loads may rely on."""

    tiles: int = 0  # of a site
    columns: int = 0  # of a module
    align: int = ALIGNED  # elements, that every place and width is a multiple of

    def joined(self, others: Iterable["Shape"]) -> "Shape":
        """That is right for all of them."""
        all_ = (self, *others)
        return Shape(
            max(shape.tiles for shape in all_),
            max(shape.columns for shape in all_),
            min(shape.align for shape in all_),
        )


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
        self.pieces = sites
        is_aligned = all(
            number % ALIGNED == 0 for record in records for number in (*record[:2], *record[3:])
        )
        self.shape = Shape(
            max((sum(map(len, site)) for site in by_slice), default=0),
            max((record[4] for record in records), default=0),
            ALIGNED if is_aligned else 1,
        )
        flat = [*starts, *(number for record in records for number in record)]
        self._table = integers(flat, memory.device)

    @property
    def address(self) -> int:
        return self._table.data_ptr()


def own(bank: device.Bank) -> Bank:
    """That this device made, as all are that come to it."""
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
