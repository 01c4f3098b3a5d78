"""Moving what runs: what workers say and do goes in, what they are to do comes out.

A round asks workers that something may leave for their sequences, has a plan made of what they
tell, and orders of it what may move at once. A worker that drains is asked in round after round,
until nothing is left there.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.core.reports import Moved, SequenceLoad
from services.core.types import Digest, WorkerId
from services.policies.migration.loads import PlannedMove, Reason, WorkerLoad
from services.policies.migration.sources import sources
from services.scheduler.loads import holds, load_of
from services.scheduler.migrations import Migration
from services.scheduler.wishes import WorkerState
from services.scheduler.worker import Worker

MOVABLE = (WorkerState.SERVING, WorkerState.CORDONED, WorkerState.DRAINING)


@dataclass(frozen=True, slots=True)
class Rules:
    """`balance_seconds`: from one round for balance to the next; 0: there are none.
    `most_underway`: moves that a worker may take part in at once. `tell_seconds`: how long a round
    waits to be told. `move_seconds`: after which a move of which nothing was heard counts no more.
    `fetch_seconds`: how long a move waits for its adapter to be where it goes.
    `drain_seconds`: from one round for who drains to the next, unless its moves end before."""

    balance_seconds: float = 10.0
    most_underway: int = 8
    tell_seconds: float = 3.0
    move_seconds: float = 30.0
    drain_seconds: float = 1.0
    fetch_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class _Underway:
    move: Migration
    tokens: int
    since: float


@dataclass(slots=True)
class _Round:
    asked: frozenset[WorkerId]
    since: float
    by_operator: bool
    told: dict[WorkerId, tuple[SequenceLoad, ...]]

    def is_over(self, live: set[WorkerId], now: float, patience: float) -> bool:
        awaited = (self.asked & live) - self.told.keys()
        return not awaited or now - self.since >= patience


class Control:
    def __init__(self, rules: Rules, *, term: int, now: float) -> None:
        """`term`: orders are named by it, so that no two leaders name theirs alike."""
        self._rules = rules
        self._term = term
        self._count = 0
        self._underway: dict[str, _Underway] = {}
        self._held: dict[str, Migration] = {}  # those underway that nobody was told of yet
        self._round: _Round | None = None
        self._balanced_at = now
        self._drained_at = -math.inf

    def told(self, worker: WorkerId, sequences: tuple[SequenceLoad, ...]) -> None:
        """What runs and waits there."""
        if self._round is not None and worker in self._round.asked:
            self._round.told[worker] = sequences

    def ended(self, outcomes: Sequence[Moved]) -> None:
        """Moves that are not underway any more."""
        for outcome in outcomes:
            underway = self._underway.pop(outcome.move, None)
            if underway is not None and underway.move.reason is Reason.DRAIN:
                self._more_to_drain(underway.move.source)

    def ask(self, fleet: Sequence[Worker], now: float, *, by_operator: bool) -> set[WorkerId]:
        """Begins a round, instead of one that was begun: who is to tell its sequences. Of others
        nothing moves, and their sums are enough."""
        able = [worker for worker in fleet if worker.state in MOVABLE]
        silent = {each.identity.id for each in able if each.report.sums is None}
        summed = [load_of(each, None) for each in able if each.report.sums is not None]
        asked = frozenset(silent | sources(summed))
        self._round = _Round(asked, now, by_operator, {})
        self._balanced_at = self._drained_at = now
        return set(asked)

    def is_due(self, fleet: Sequence[Worker], now: float) -> bool:
        """Whether it is time to begin a round."""
        if self._round is not None:
            return False
        drains = any(worker.state is WorkerState.DRAINING and worker.sequences for worker in fleet)
        if drains and now - self._drained_at >= self._rules.drain_seconds:
            return True
        period = self._rules.balance_seconds
        return period > 0 and now - self._balanced_at >= period and _can_balance(fleet)

    def loads(self, fleet: Sequence[Worker], now: float) -> list[WorkerLoad] | None:
        """What to plan by, once the round's workers have told it, or had the time to; else None."""
        self._forget(fleet, now)
        live = {worker.identity.id for worker in fleet}
        round_ = self._round
        if round_ is None or not round_.is_over(live, now, self._rules.tell_seconds):
            return None
        asked, told, underway = round_.asked, round_.told, self._underway.values()
        leaving = {each.move.request for each in underway}
        coming: Counter[WorkerId] = Counter()
        for each in underway:
            coming[each.move.target] += each.tokens

        def staying(worker: WorkerId) -> tuple[SequenceLoad, ...] | None:
            if worker not in told:
                return None
            return tuple(each for each in told[worker] if each.request not in leaving)

        return [
            load_of(worker, staying(worker.identity.id), coming[worker.identity.id])
            for worker in fleet
            if worker.identity.id in told or (worker.identity.id not in asked and _is_known(worker))
        ]

    def orders(
        self, planned: Sequence[PlannedMove], fleet: Sequence[Worker], now: float
    ) -> list[Migration]:
        """Of what was planned, what may begin now; it is underway then. Ends the round."""
        chosen = self.choose(planned, fleet)
        tokens = self._tokens()
        self._underway |= {
            move.id: _Underway(move, tokens.get(move.request, 0), now) for move in chosen
        }
        self.end_round()
        return chosen

    def choose(self, planned: Sequence[PlannedMove], fleet: Sequence[Worker]) -> list[Migration]:
        """The same, of which nothing begins."""
        room = self._room(fleet)
        by_operator = self._round is not None and self._round.by_operator
        chosen: list[Migration] = []
        for move in planned:
            if room[move.source] > 0 and room[move.target] > 0:
                room[move.source] -= 1
                room[move.target] -= 1
                chosen.append(self._migration(move, by_operator))
        return chosen

    def hold(self, moves: Sequence[Migration]) -> None:
        """Until their adapters are where they go."""
        self._held |= {move.id: move for move in moves}

    def release(self, fleet: Sequence[Worker], now: float) -> list[Migration]:
        """Whose source may be told now, once each: the adapter is there, or that took too long, or
        the target is gone."""
        there = {worker.identity.id: worker.report for worker in fleet}
        since = {name: underway.since for name, underway in self._underway.items()}
        self._held = {name: move for name, move in self._held.items() if name in since}
        ready = [
            move
            for move in self._held.values()
            if move.target not in there
            or holds(there[move.target], move.adapter)
            or now - since[move.id] >= self._rules.fetch_seconds
        ]
        for move in ready:
            del self._held[move.id]
        return ready

    @property
    def wanted(self) -> list[tuple[WorkerId, Digest]]:
        """Adapters that moves wait for, and where."""
        return [(m.target, m.adapter) for m in self._held.values() if m.adapter is not None]

    def end_round(self) -> None:
        self._round = None

    def withdraw(self, moves: Sequence[Migration]) -> None:
        """They were not told to anybody."""
        for move in moves:
            self._underway.pop(move.id, None)

    def _more_to_drain(self, worker: WorkerId) -> None:
        """Its next round is due once all that was ordered in the one before has ended."""
        if all(move.source != worker for move in self.underway):
            self._drained_at = -math.inf

    @property
    def is_told(self) -> bool:
        """Everybody who was asked has said what runs there."""
        return self._round is not None and len(self._round.told) == len(self._round.asked)

    @property
    def is_idle(self) -> bool:
        """No round has begun."""
        return self._round is None

    @property
    def underway(self) -> list[Migration]:
        return [underway.move for underway in self._underway.values()]

    def _forget(self, fleet: Sequence[Worker], now: float) -> None:
        """Moves whose source is gone, or has said nothing of them for too long."""
        live = {worker.identity.id for worker in fleet}
        oldest = now - self._rules.move_seconds
        self._underway = {
            name: underway
            for name, underway in self._underway.items()
            if underway.move.source in live and underway.since > oldest
        }

    def _room(self, fleet: Sequence[Worker]) -> Counter[WorkerId]:
        """Moves that each may take part in beyond those that are underway."""
        room = Counter({worker.identity.id: self._rules.most_underway for worker in fleet})
        for move in self.underway:
            room[move.source] -= 1
            room[move.target] -= 1
        return room

    def _tokens(self) -> dict[str, int]:
        told = self._round.told.values() if self._round is not None else ()
        return {each.request: each.tokens for sequences in told for each in sequences}

    def _migration(self, move: PlannedMove, by_operator: bool) -> Migration:
        self._count += 1
        asked_for = by_operator and move.reason is Reason.BALANCE
        return Migration(
            id=f"{self._term}-{self._count}",
            request=move.request,
            adapter=move.adapter,
            source=move.source,
            target=move.target,
            reason=Reason.OPERATOR if asked_for else move.reason,
            gain_seconds=move.gain_seconds,
        )


def _is_known(worker: Worker) -> bool:
    return worker.state in MOVABLE and worker.report.sums is not None


def _can_balance(fleet: Sequence[Worker]) -> bool:
    """Whether something runs, and could run elsewhere."""
    serving = Counter(
        worker.identity.base_fingerprint for worker in fleet if worker.state is WorkerState.SERVING
    )
    busy = any(worker.sequences for worker in fleet)
    return busy and max(serving.values(), default=0) > 1
