"""Merging always, never, or whenever it pays at this moment: what better policies are held to."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.core.types import Digest
from services.policies.merging.batches import Batch, Queued, Ran, largest, of_adapter


@dataclass(frozen=True, slots=True)
class UnmergedOnly:
    """First come, first served."""

    seats: int
    ratio: float | None = None

    def choose(self, queued: Sequence[Queued]) -> Batch:
        return Batch(tuple(queued[: self.seats]))

    def ran(self, ran: Ran) -> None:
        """Nothing is to be learnt."""


@dataclass(slots=True)
class MergedOnly:
    """One adapter as long as it has requests, then the one that has most. The base model's turn
    comes when nobody else is there."""

    seats: int
    ratio: float | None = None
    _merged: Digest | None = None

    def choose(self, queued: Sequence[Queued]) -> Batch:
        merged = self._merged
        if merged is None or all(request.adapter != merged for request in queued):
            self._merged = largest(queued)
        if self._merged is None:
            return Batch(tuple(queued[: self.seats]))
        return Batch(of_adapter(queued, self._merged, self.seats), self._merged)

    def ran(self, ran: Ran) -> None:
        """Nothing is to be learnt."""


@dataclass(slots=True)
class Mixed:
    """First come, first served, with the adapter in the weights that most of the first are of; it
    stays while any of them is its own. Others run beside it."""

    seats: int
    ratio: float | None = None
    _merged: Digest | None = None

    def choose(self, queued: Sequence[Queued]) -> Batch:
        first = tuple(queued[: self.seats])
        merged = self._merged
        if merged is None or all(request.adapter != merged for request in first):
            self._merged = largest(first)
        return Batch(first, self._merged)

    def ran(self, ran: Ran) -> None:
        """Nothing is to be learnt."""


@dataclass(slots=True)
class BreakEven:
    """Merges whenever more requests a second then end, whatever the switch costs. `ratio`: of the
    time of a merged step to that of an unmerged one."""

    seats: int
    ratio: float
    _merged: Digest | None = None

    def choose(self, queued: Sequence[Queued]) -> Batch:
        first = tuple(queued[: self.seats])
        adapter = largest(queued)
        of_one = of_adapter(queued, adapter, self.seats) if adapter is not None else ()
        if len(of_one) > self.ratio * len(first):
            self._merged = adapter
            return Batch(of_one, adapter)
        self._merged = None
        return Batch(first)

    def ran(self, ran: Ran) -> None:
        """The ratio is given."""
