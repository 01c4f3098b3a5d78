"""A fleet while a round is planned: who has what, how much work that is, where there is room."""

from collections.abc import Iterable

from services.core.reports import SequenceLoad
from services.core.types import RequestId, WorkerId
from services.policies.migration.loads import PlannedMove, Reason, WorkerLoad
from services.policies.migration.place import Place, added
from services.policies.migration.targets import Targets


class Board:
    """Moves are played on it before anybody makes them. `frozen`: stay where they are unless they
    must go; who moves is frozen too."""

    def __init__(self, loads: Iterable[WorkerLoad], frozen: Iterable[RequestId] = ()) -> None:
        self.places = {load.id: Place.of(load) for load in loads}
        self.frozen = set(frozen)
        self.moves: list[PlannedMove] = []
        self._targets = Targets(self.places)

    def copy(self, workers: Iterable[WorkerId] | None = None) -> "Board":
        """Of these workers, or of all."""
        other = Board((), self.frozen)
        chosen = self.places if workers is None else workers
        other.places = {id_: self.places[id_].copy() for id_ in chosen}
        other.moves = list(self.moves)
        other._targets = Targets(other.places)
        return other

    @property
    def makespan_ms(self) -> float:
        return max((place.work_ms for place in self.places.values()), default=0.0)

    @property
    def imbalance(self) -> float:
        """How much more the busiest has to do than workers have on average; 0 if nobody waits
        there."""
        if not self.places:
            return 0.0
        busiest = max(self.places.values(), key=lambda place: place.work_ms)
        work = [p.work_ms for p in self.places.values() if p.load.takes or p is busiest]
        mean = added(work) / len(work)
        return busiest.work_ms / mean - 1 if mean and busiest.has_line else 0.0

    def targets(self, source: Place, sequence: SequenceLoad) -> list[Place]:
        """Where it could go."""
        return self._targets.able(source, sequence)

    def best_target(self, source: Place, sequence: SequenceLoad) -> Place | None:
        """Where it starts at once rather than where it waits, then the least busy."""
        return self._targets.best(source, sequence)

    def move(
        self,
        sequence: SequenceLoad,
        source: Place,
        target: Place,
        reason: Reason,
        gain_ms: float = 0.0,
    ) -> None:
        source.give(sequence)
        target.take(sequence)
        self._targets.changed(source)
        self._targets.changed(target)
        self.frozen.add(sequence.request)
        ids: tuple[WorkerId, WorkerId] = source.load.id, target.load.id
        move = PlannedMove(sequence.request, sequence.adapter, *ids, reason, gain_ms / 1000)
        self.moves.append(move)
