"""A fleet while a round is planned: who has what, how long that takes, where there is room."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.core.reports import SequenceLoad
from services.core.types import Digest, RequestId, WorkerId
from services.policies.migration.loads import PlannedMove, Reason, WorkerLoad


@dataclass(slots=True)
class Place:
    """A worker with what was planned for it. What leaves frees nothing in the same round: nobody
    knows who goes first.

    `room_tokens`: that nothing there will want; `seats`: sequences that would start at once;
    `line`: that may come, to run or to wait; `slots`: adapters that may come.
    """

    load: WorkerLoad
    sequences: dict[RequestId, SequenceLoad]
    tokens_left: int
    prompts: int  # tokens of those that have not begun
    lengths: int  # tokens that all will hold in the end
    moves_ms: float = 0.0  # that moves to it cost it
    room_tokens: int = 0
    seats: int = 0
    line: int = 0
    slots: float = 0.0
    adapters: set[Digest | None] = field(default_factory=set)  # resident or to come
    held: set[Digest | None] = field(default_factory=set)  # in use, now or then

    @classmethod
    def of(cls, load: WorkerLoad) -> "Place":
        there = load.sequences
        waiting = sum(each.tokens for each in there if each.waiting)
        left = sum(each.tokens_left for each in there)
        held = {None, *(each.adapter for each in there)}
        most = load.most_adapters
        return cls(
            load,
            {each.request: each for each in there},
            tokens_left=left,
            prompts=waiting,
            lengths=left + sum(each.tokens for each in there),
            room_tokens=load.free_tokens - left - waiting,
            seats=load.most_sequences - len(there),
            line=load.most_sequences - len(there) + load.most_waiting,
            slots=float("inf") if most is None else most - len(held) + 1,
            adapters={None, *load.resident},
            held=held,
        )

    def copy(self) -> "Place":
        return Place(
            self.load, dict(self.sequences), self.tokens_left, self.prompts, self.lengths,
            self.moves_ms, self.room_tokens, self.seats, self.line, self.slots,
            set(self.adapters), set(self.held),
        )  # fmt: skip

    @property
    def has_line(self) -> bool:
        """Whether it has more than run side by side."""
        return len(self.sequences) > self._side_by_side(len(self.sequences), self.lengths)

    @property
    def drain_ms(self) -> float:
        """Milliseconds until all that it has would be done, as one crowd that shares its steps."""
        return self._drain_ms(len(self.sequences), self.tokens_left, self.prompts, self.lengths)

    def drain_ms_with(self, sequence: SequenceLoad, *, moved: bool = True) -> float:
        """If it came too; `moved`: and cost what a move costs."""
        drain = self._drain_ms(
            len(self.sequences) + 1,
            self.tokens_left + sequence.tokens_left,
            self.prompts + sequence.tokens * sequence.waiting,
            self.lengths + sequence.tokens + sequence.tokens_left,
        )
        return drain + (self.cost_ms(sequence) + self.load_ms(sequence.adapter)) * moved

    def drain_ms_without(self, sequence: SequenceLoad) -> float:
        return self._drain_ms(
            len(self.sequences) - 1,
            self.tokens_left - sequence.tokens_left,
            self.prompts - sequence.tokens * sequence.waiting,
            self.lengths - sequence.tokens - sequence.tokens_left,
        )

    def cost_ms(self, sequence: SequenceLoad) -> float:
        """Of its keys and values, moved here or computed here once more, whichever is cheaper."""
        if sequence.waiting:
            return 0.0
        again, move = self.load.step_times.token, self.load.move_ms
        return sequence.tokens * (again if move is None else min(again, move))

    def load_ms(self, adapter: Digest | None) -> float:
        return 0.0 if adapter in self.adapters else self.load.load_ms

    def token_ms(self) -> float:
        """Of one token to generate when it is busy."""
        most = self._side_by_side(max(len(self.sequences), 1), self.lengths)
        return self.load.step_times.base / most + self.load.step_times.sequence

    def needs(self, sequence: SequenceLoad) -> int:
        """Tokens of the pool."""
        absent = sequence.adapter not in self.adapters
        return sequence.tokens + sequence.tokens_left + self.load.adapter_tokens * absent

    def starts(self, sequence: SequenceLoad) -> bool:
        """Whether it would run there at once."""
        return self.seats > 0 and self.needs(sequence) <= self.room_tokens

    def has_room(self, sequence: SequenceLoad) -> bool:
        """Whether it may come: what runs must go on at once, what waits may wait there too."""
        if not self.load.takes or (sequence.adapter not in self.held and self.slots < 1):
            return False
        if self.starts(sequence):
            return True
        may_wait = sequence.waiting and self.load.most_waiting > 0 and self.line > 0
        return may_wait and self.needs(sequence) <= self.load.total_tokens

    def give(self, sequence: SequenceLoad) -> None:
        del self.sequences[sequence.request]
        self._count(sequence, -1)

    def take(self, sequence: SequenceLoad) -> None:
        self.moves_ms += self.cost_ms(sequence) + self.load_ms(sequence.adapter)
        self.room_tokens -= self.needs(sequence)
        self.seats -= 1
        self.line -= 1
        if sequence.adapter not in self.held:
            self.slots -= 1
        self.adapters.add(sequence.adapter)
        self.held.add(sequence.adapter)
        self.sequences[sequence.request] = sequence
        self._count(sequence, 1)

    def _count(self, sequence: SequenceLoad, sign: int) -> None:
        self.tokens_left += sign * sequence.tokens_left
        self.prompts += sign * sequence.tokens * sequence.waiting
        self.lengths += sign * (sequence.tokens + sequence.tokens_left)

    def _drain_ms(self, count: int, left: int, prompts: int, lengths: int) -> float:
        times = self.load.step_times
        step = times.base / max(1, min(count, self._side_by_side(count, lengths))) + times.sequence
        return left * step + prompts * times.token + self.moves_ms

    def _side_by_side(self, count: int, lengths: int) -> int:
        """How many could run at once if there were so many: as its limit and memory let."""
        most = self.load.most_sequences
        if lengths * most > self.load.total_tokens * count:
            most = self.load.total_tokens * count // lengths
        return max(most, 1)


class Board:
    """Moves are played on it before anybody makes them. `frozen`: stay where they are unless they
    must go; who moves is frozen too."""

    def __init__(self, loads: Iterable[WorkerLoad], frozen: Iterable[RequestId] = ()) -> None:
        self.places = {load.id: Place.of(load) for load in loads}
        self.frozen = set(frozen)
        self.moves: list[PlannedMove] = []

    def copy(self) -> "Board":
        other = Board((), self.frozen)
        other.places = {id_: place.copy() for id_, place in self.places.items()}
        other.moves = list(self.moves)
        return other

    @property
    def makespan_ms(self) -> float:
        return max((place.drain_ms for place in self.places.values()), default=0.0)

    @property
    def imbalance(self) -> float:
        """How much longer the busiest takes than all do on average; 0 if nobody waits there: who
        has a seat gains nothing from a worker that has less to do."""
        if not self.places:
            return 0.0
        busiest = max(self.places.values(), key=lambda place: place.drain_ms)
        drains = [p.drain_ms for p in self.places.values() if p.load.takes or p is busiest]
        mean = sum(drains) / len(drains)
        return busiest.drain_ms / mean - 1 if mean and busiest.has_line else 0.0

    def targets(self, source: Place, sequence: SequenceLoad) -> list[Place]:
        """Where it could go."""
        return [
            place
            for place in self.places.values()
            if place is not source
            and place.load.base == source.load.base
            and place.has_room(sequence)
        ]

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
        self.frozen.add(sequence.request)
        self.moves.append(
            PlannedMove(
                sequence.request, sequence.adapter, source.load.id, target.load.id, reason,
                gain_ms / 1000,
            )
        )  # fmt: skip

    def where(self) -> dict[RequestId, WorkerId]:
        return {request: id_ for id_, place in self.places.items() for request in place.sequences}
