"""A worker while a round is planned: what it has, how much work that is, where there is room."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add

from services.core.reports import SequenceLoad, SequenceSum, SequenceSums
from services.core.types import Digest, RequestId
from services.policies.migration.loads import WorkerLoad


@dataclass(slots=True)
class Place:
    """A worker with what was planned for it. What leaves frees nothing in the same round: nobody
    knows who goes first.

    `others`: sequences that stay, beyond those that are named.
    `side_by_side`: sequences that run at once, as its limit and memory let; `token_ms`: of its time
    for a token to generate, when so many run. `work_ms`: of all it has, and of what moves to it
    cost. `room_tokens`: that nothing there will want; `seats`: of sequences that would start at
    once; `line`: that may come, to run or to wait; `slots`: of adapters that may come. `held`:
    adapters in use, by somebody who is there or comes; `adapters`: also those that are resident.
    """

    load: WorkerLoad
    sequences: dict[RequestId, SequenceLoad]
    others: int
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
        others = load.others
        running, waiting = _sums(there, others)
        left, count = running.tokens_left + waiting.tokens_left, running.count + waiting.count
        side_by_side = _side_by_side(load, count, running.length + waiting.length)
        token_ms = times.base / side_by_side + times.sequence
        held = {None, *load.in_use, *(each.adapter for each in there)}
        return cls(
            load=load,
            sequences={each.request: each for each in there},
            others=others.running.count + others.waiting.count,
            side_by_side=side_by_side,
            token_ms=token_ms,
            work_ms=left * token_ms + waiting.tokens * times.token,
            room_tokens=load.free_tokens - left - waiting.tokens,
            seats=load.most_sequences - count,
            line=load.most_sequences - count + load.most_waiting,
            slots=float("inf") if most is None else most - len(held) + 1,
            held=held,
            adapters={*held, *load.resident},
        )

    def copy(self) -> "Place":
        return Place(
            self.load, dict(self.sequences), self.others, self.side_by_side, self.token_ms,
            self.work_ms, self.room_tokens, self.seats, self.line, self.slots, set(self.held),
            set(self.adapters),
        )  # fmt: skip

    @property
    def may_take(self) -> bool:
        """Whether there is anybody who may come; once there is not, there is not in this round."""
        may_run = self.seats > 0 and self.room_tokens >= 0
        return self.load.takes and (may_run or (self.load.most_waiting > 0 and self.line > 0))

    @property
    def has_line(self) -> bool:
        """Whether it has more than run at once: who leaves then makes place for who stays."""
        return self.count > self.side_by_side

    @property
    def count(self) -> int:
        return len(self.sequences) + self.others

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
        if not self.may_take or (sequence.adapter not in self.held and self.slots < 1):
            return False
        if self.starts(sequence):
            return True
        may_wait = sequence.waiting and self.load.most_waiting > 0 and self.line > 0
        return may_wait and self.needs(sequence) <= self.load.total_tokens

    def longest(self, *, waiting: bool) -> int:
        """Tokens of a sequence that may come, in all, whatever its adapter; -1: of none."""
        starts = self.room_tokens if self.seats > 0 else -1
        may_wait = waiting and self.load.most_waiting > 0 and self.line > 0
        return max(starts, self.load.total_tokens) if may_wait else starts

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


def gain_ms(source: Place, target: Place, sequence: SequenceLoad) -> float:
    """By how much the busier of the two is done sooner if it moves."""
    after = max(source.work_ms - source.run_ms(sequence), target.work_ms_with(sequence))
    return max(source.work_ms, target.work_ms) - after


def added(values: Iterable[float]) -> float:
    """One after the other, as in C; sum() of Python 3.12 does otherwise."""
    return reduce(add, values, 0.0)


def _side_by_side(load: WorkerLoad, count: int, lengths: int) -> int:
    most = load.most_sequences
    if lengths:
        most = min(most, load.total_tokens * count // lengths)
    return max(most, 1)


def _sums(there: Collection[SequenceLoad], others: SequenceSums) -> tuple[SequenceSum, SequenceSum]:
    """Of all that runs, and all that waits."""
    named = SequenceSums.of(there)
    return named.running + others.running, named.waiting + others.waiting
