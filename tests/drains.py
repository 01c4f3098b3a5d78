"""Only what must move: the sequences of workers that drain."""

from collections.abc import Sequence

from services.core.reports import SequenceLoad
from services.core.types import RequestId
from services.policies.migration.loads import Debts, PlannedMove, Reason, WorkerLoad


class Drains:
    """Each goes to the worker of its base model that has most room left."""

    def plan(self, loads: Sequence[WorkerLoad], now: float, debts: Debts) -> list[PlannedMove]:
        places = [_Place(load) for load in loads if load.takes]
        moves = []
        for source in (load for load in loads if load.draining):
            for sequence in source.sequences:
                able = [place for place in places if place.has_room(source, sequence)]
                if able:
                    target = max(able, key=lambda place: place.room)
                    target.take(sequence)
                    moves.append(_move(sequence, source, target.load))
        return moves

    def forget(self, request: RequestId) -> None:
        """Nothing is remembered."""


class _Place:
    def __init__(self, load: WorkerLoad) -> None:
        self.load = load
        self.tokens = load.free_tokens
        self.room = load.most_sequences - len(load.sequences)

    def has_room(self, source: WorkerLoad, sequence: SequenceLoad) -> bool:
        needed = sequence.tokens + sequence.tokens_left
        return self.load.base == source.base and self.room > 0 and self.tokens >= needed

    def take(self, sequence: SequenceLoad) -> None:
        self.tokens -= sequence.tokens + sequence.tokens_left
        self.room -= 1


def _move(sequence: SequenceLoad, source: WorkerLoad, target: WorkerLoad) -> PlannedMove:
    return PlannedMove(sequence.request, sequence.adapter, source.id, target.id, Reason.DRAIN)
