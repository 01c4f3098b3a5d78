"""A fleet while a round is planned: who has what, how much work that is, where there is room."""

from collections.abc import Iterable
from dataclasses import dataclass

from services.core.reports import SequenceLoad
from services.core.types import Digest, RequestId, WorkerId
from services.policies.migration.loads import PlannedMove, Reason, WorkerLoad


@dataclass(slots=True)
class Place:
    """A worker with what was planned for it. What leaves frees nothing in the same round: nobody
    knows who goes first.

    `side_by_side`: sequences that run at once, as its limit and memory let; `token_ms`: of its time
    for a token to generate, when so many run. `work_ms`: of all it has, and of what moves to it
    cost. `room_tokens`: that nothing there will want; `seats`: of sequences that would start at
    once; `line`: that may come, to run or to wait; `slots`: of adapters that may come. `held`:
    adapters in use, by somebody who is there or comes; `adapters`: also those that are resident.
    """

    load: WorkerLoad
    sequences: dict[RequestId, SequenceLoad]
    side_by_side: int
    token_ms: float
    work_ms: float
    room_tokens: int
    seats: int
    line: int
    slots: float
    held: set[Digest | None]
    adapters: set[Digest | None]

    @classmethod
    def of(cls, load: WorkerLoad) -> "Place":
        there, times, most = load.sequences, load.step_times, load.most_adapters
        left = sum(each.tokens_left for each in there)
        waiting = sum(each.tokens for each in there if each.waiting)
        side_by_side = _side_by_side(load)
        token_ms = times.base / side_by_side + times.sequence
        held = {None, *(each.adapter for each in there)}
        return cls(
            load=load,
            sequences={each.request: each for each in there},
            side_by_side=side_by_side,
            token_ms=token_ms,
            work_ms=left * token_ms + waiting * times.token,
            room_tokens=load.free_tokens - left - waiting,
            seats=load.most_sequences - len(there),
            line=load.most_sequences - len(there) + load.most_waiting,
            slots=float("inf") if most is None else most - len(held) + 1,
            held=held,
            adapters={*held, *load.resident},
        )

    def copy(self) -> "Place":
        return Place(
            self.load, dict(self.sequences), self.side_by_side, self.token_ms, self.work_ms,
            self.room_tokens, self.seats, self.line, self.slots, set(self.held), set(self.adapters),
        )  # fmt: skip

    @property
    def has_line(self) -> bool:
        """Whether it has more than run at once: only then anybody gains from leaving."""
        return len(self.sequences) > self.side_by_side

    def run_ms(self, sequence: SequenceLoad) -> float:
        """Of its time, to the end of the sequence."""
        prompt = sequence.tokens * self.load.step_times.token if sequence.waiting else 0.0
        return sequence.tokens_left * self.token_ms + prompt

    def cost_ms(self, sequence: SequenceLoad) -> float:
        """Of its keys and values, moved here or computed here once more, whichever is cheaper."""
        if sequence.waiting:
            return 0.0
        again, move = self.load.step_times.token, self.load.move_ms
        return sequence.tokens * (again if move is None else min(again, move))

    def load_ms(self, adapter: Digest | None) -> float:
        if adapter in self.adapters:
            return 0.0
        return self.load.copy_ms if adapter in self.load.on_host else self.load.load_ms

    def work_ms_with(self, sequence: SequenceLoad) -> float:
        """If it came too."""
        moved = self.cost_ms(sequence) + self.load_ms(sequence.adapter)
        return self.work_ms + self.run_ms(sequence) + moved

    def needs(self, sequence: SequenceLoad) -> int:
        """Tokens of the pool."""
        absent = sequence.adapter not in self.adapters
        return sequence.tokens + sequence.tokens_left + self.load.adapter_tokens * absent

    def starts(self, sequence: SequenceLoad) -> bool:
        """Whether it would run here at once."""
        return self.seats > 0 and self.needs(sequence) <= self.room_tokens

    def has_room(self, sequence: SequenceLoad) -> bool:
        """Whether it may come: what runs must go on at once, what waits may wait here too."""
        if not self.load.takes or (sequence.adapter not in self.held and self.slots < 1):
            return False
        if self.starts(sequence):
            return True
        may_wait = sequence.waiting and self.load.most_waiting > 0 and self.line > 0
        return may_wait and self.needs(sequence) <= self.load.total_tokens

    def give(self, sequence: SequenceLoad) -> None:
        del self.sequences[sequence.request]
        self.work_ms -= self.run_ms(sequence)

    def take(self, sequence: SequenceLoad) -> None:
        self.work_ms = self.work_ms_with(sequence)
        self.room_tokens -= self.needs(sequence)
        self.seats -= 1
        self.line -= 1
        self.slots -= sequence.adapter not in self.held
        self.held.add(sequence.adapter)
        self.adapters.add(sequence.adapter)
        self.sequences[sequence.request] = sequence


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
        return max((place.work_ms for place in self.places.values()), default=0.0)

    @property
    def imbalance(self) -> float:
        """How much more the busiest has to do than workers have on average; 0 if nobody waits
        there."""
        if not self.places:
            return 0.0
        busiest = max(self.places.values(), key=lambda place: place.work_ms)
        work = [p.work_ms for p in self.places.values() if p.load.takes or p is busiest]
        mean = sum(work) / len(work)
        return busiest.work_ms / mean - 1 if mean and busiest.has_line else 0.0

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
        ids: tuple[WorkerId, WorkerId] = source.load.id, target.load.id
        move = PlannedMove(sequence.request, sequence.adapter, *ids, reason, gain_ms / 1000)
        self.moves.append(move)


def gain_ms(source: Place, target: Place, sequence: SequenceLoad) -> float:
    """By how much the busier of the two is done sooner if it moves."""
    after = max(source.work_ms - source.run_ms(sequence), target.work_ms_with(sequence))
    return max(source.work_ms, target.work_ms) - after


def _side_by_side(load: WorkerLoad) -> int:
    lengths = sum(each.tokens + each.tokens_left for each in load.sequences)
    most = load.most_sequences
    if lengths:
        most = min(most, load.total_tokens * len(load.sequences) // lengths)
    return max(most, 1)
