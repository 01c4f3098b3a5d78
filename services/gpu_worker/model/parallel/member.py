"""One process of a tensor-parallel group, and which part of things is its own."""

from dataclasses import dataclass
from enum import StrEnum

COLUMNS = frozenset({"q", "k", "v", "gate", "up"})
"""Linears whose outputs are dealt out (Megatron-LM, arXiv 1909.08053); of the others, o and down,
the inputs are."""


class Partition(StrEnum):
    """How adapters are dealt out to the members of a group."""

    SHARDED = "sharded"
    """As S-LoRA does (arXiv 2311.03285, section 6): nobody has anything twice, and what lies
    between A and B, which is small, is exchanged."""
    REPLICATED = "replicated"
    """A of the linears whose outputs are dealt out, and B of the others, are everybody's: nothing
    is exchanged, and those products are made by everybody."""
    BLOCK_DIAGONAL = "block_diagonal"
    """Only adapters that were trained so (BD-LoRA, arXiv 2510.23346): nothing is exchanged, and
    nobody has anything twice."""


@dataclass(frozen=True, slots=True)
class Member:
    """The first, number 0, leads."""

    number: int
    of: int

    def part(self, whole: int) -> slice:
        """Its own of so many, which divide evenly."""
        each = whole // self.of
        return slice(self.number * each, (self.number + 1) * each)

    def others(self) -> range:
        """Of the leader."""
        return range(1, self.of)
