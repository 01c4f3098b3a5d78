"""The rows and columns of the co-migration program, in seconds of work:

    minimise  T + sum_j lost_j / N + sum_i price_i (i moves)
    work_j  = sum_i run_ij x_ij + lost_j + fixed_j  <= T
    lost_j  = sum_i move_ij x_ij + sum_k load_kj y_kj + spill_j z_j
    sum_j x_ij = 1;  x_ij <= y_kj where i's adapter k is not held by j
    z_j >= tokens that what runs on j will hold - those it has

What leaves j makes no room for what comes in the same round: rows for what comes say so.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from services.core.reports import SequenceLoad
from services.core.types import Digest, WorkerId
from services.policies.migration.board import Board
from services.policies.migration.greedy import Owed
from services.policies.migration.place import Place

CAUTION = 1.0  # what has begun pays so much of its move's cost once more: predictions err
LEAST_PRICE = 1e-4  # seconds, of any move: it must gain something
OWED_OFF = 0.5  # of that, for whoever is owed most


@dataclass(frozen=True, slots=True)
class Effort:
    """How long the program may think. `gap`: of the best, that need not be closed. `exact`: up to
    so many choices x is 0 or 1; beyond, where one request is little of the whole, it is relaxed.
    `choices`: up to which it is asked about all workers at once."""

    seconds: float = 0.5
    gap: float = 0.02
    nodes: int = 1000
    exact: int = 200
    choices: int = 20_000


@dataclass(frozen=True, slots=True)
class Choice:
    """A sequence may be on `target`; if that is its `source` it stays."""

    sequence: SequenceLoad
    source: WorkerId
    target: WorkerId

    @property
    def stays(self) -> bool:
        return self.source == self.target


def choices_of(board: Board) -> list[Choice]:
    """Of all that may move, from workers where some wait; of each the first is to stay."""
    return [
        Choice(each, source.load.id, place.load.id)
        for source in board.places.values()
        if source.has_line
        for each in source.sequences.values()
        if each.request not in board.frozen
        for place in (source, *board.targets(source, each))
    ]


class Model:
    """Columns: x by choice, y by adapter and worker, z by worker, T."""

    def __init__(self, board: Board, choices: list[Choice], owed: Owed, *, most_moves: int) -> None:
        self._choices = choices
        self._places = board.places
        self._chosen: defaultdict[WorkerId, list[int]] = defaultdict(list)
        self._y: dict[tuple[Digest | None, WorkerId], int] = {}
        for column, choice in enumerate(choices):
            self._chosen[choice.target].append(column)
            key = choice.sequence.adapter, choice.target
            if choice.sequence.adapter not in self._places[choice.target].held:
                self._y.setdefault(key, len(choices) + len(self._y))
        self._z = len(choices) + len(self._y)  # the first
        self._t = self._z + len(self._places)
        self._rows: list[tuple[dict[int, float], float, float]] = []
        self._price = self._prices(owed)
        for number, place in enumerate(self._places.values()):
            self._add_work(place, self._z + number)
            self._add_memory(place, self._z + number)
            self._add_room(place)
            self._add_rest(place)
        self._add_choices(most_moves)

    def solve(self, effort: Effort, *, below_seconds: float) -> list[float] | None:
        """x; None if T cannot be so small, or nothing was found in time."""
        size = self._t + 1
        integral, most = np.zeros(size), np.ones(size)
        integral[len(self._choices) : self._z] = 1
        integral[: len(self._choices)] = len(self._choices) <= effort.exact
        most[self._z : self._t] = np.inf
        most[self._t] = below_seconds
        found = milp(
            self._price,
            integrality=integral,
            bounds=Bounds(0, most),
            constraints=self._constraints(),
            options={
                "time_limit": effort.seconds,
                "mip_rel_gap": effort.gap,
                "node_limit": effort.nodes,
            },
        )
        return None if found.x is None else list(found.x[: len(self._choices)])

    def _constraints(self) -> LinearConstraint:
        terms = [terms for terms, _, _ in self._rows]
        starts = np.cumsum([0, *map(len, terms)])
        columns = np.fromiter(chain.from_iterable(terms), dtype=np.int64)
        values = np.fromiter(chain.from_iterable(each.values() for each in terms), dtype=float)
        matrix = csr_array((values, columns, starts), shape=(len(terms), self._t + 1))
        return LinearConstraint(
            matrix, [low for _, low, _ in self._rows], [high for _, _, high in self._rows]
        )

    def _prices(self, owed: Owed) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """Of T and of moves; who is owed more moves for less."""
        prices = np.zeros(self._t + 1)
        prices[self._t] = 1.0
        debts = [owed.of(choice.sequence.request) for choice in self._choices]
        most = max(debts) or 1.0
        for column, (choice, debt) in enumerate(zip(self._choices, debts, strict=True)):
            if not choice.stays:
                prices[column] = CAUTION * self._move_seconds(column) / len(self._places)
                prices[column] += LEAST_PRICE * (1 - OWED_OFF * debt / most)
        return prices

    def _add_work(self, place: Place, z: int) -> None:
        """work_j <= T; what of it others need not have done is priced too."""
        lost = {c: self._move_seconds(c) for c in self._chosen[place.load.id]}
        lost |= {column: place.load_ms(adapter) / 1000 for adapter, column in self._y_of(place)}
        lost[z] = place.load.step_times.token / 1000
        for column, seconds in lost.items():
            self._price[column] += seconds / len(self._places)
        terms = dict(lost)
        for column in self._chosen[place.load.id]:
            terms[column] += place.run_ms(self._choices[column].sequence) / 1000
        free = (self._choices[c] for c in self._chosen[place.load.id])
        fixed = place.work_ms - sum(place.run_ms(each.sequence) for each in free if each.stays)
        self._rows.append(({**terms, self._t: -1.0}, -np.inf, -fixed / 1000))

    def _add_memory(self, place: Place, z: int) -> None:
        terms = {
            column: float(_length(self._choices[column].sequence))
            for column in self._chosen[place.load.id]
            if not self._choices[column].sequence.waiting
        }
        fixed = sum(_length(each) for each in self._fixed(place) if not each.waiting)
        fixed += place.load.others.running.length
        self._rows.append(({**terms, z: -1.0}, -np.inf, place.load.total_tokens - fixed))

    def _add_room(self, place: Place) -> None:
        """For what comes: in tokens and seats for what must start at once, which is all if nobody
        may wait here; in the line for all; in slots for adapters."""
        coming = [c for c in self._chosen[place.load.id] if not self._choices[c].stays]
        if not coming:
            return
        ys = [column for _, column in self._y_of(place)]
        waits = place.load.most_waiting > 0
        starting = [c for c in coming if not (waits and self._choices[c].sequence.waiting)]
        if waits:
            tokens = {c: float(place.needs(self._choices[c].sequence)) for c in starting}
        else:
            tokens = {c: float(_length(self._choices[c].sequence)) for c in starting}
            tokens |= {
                column: float(place.load.adapter_tokens)
                for adapter, column in self._y_of(place)
                if adapter not in place.adapters
            }
        if starting:
            self._rows.append((tokens, -np.inf, max(0, place.room_tokens)))
            self._rows.append((dict.fromkeys(starting, 1.0), -np.inf, max(0, place.seats)))
        self._rows.append((dict.fromkeys(coming, 1.0), -np.inf, max(0, place.line)))
        if ys and place.slots < np.inf:
            self._rows.append((dict.fromkeys(ys, 1.0), -np.inf, max(0, place.slots)))

    def _add_rest(self, place: Place) -> None:
        """As many stay as run at once: nobody else gains from leaving."""
        here = [c for c in self._chosen[place.load.id] if self._choices[c].stays]
        if here:
            fixed = place.count - len(here)
            self._rows.append((dict.fromkeys(here, 1.0), place.side_by_side - fixed, np.inf))

    def _add_choices(self, most_moves: int) -> None:
        by_request: defaultdict[str, list[int]] = defaultdict(list)
        for column, choice in enumerate(self._choices):
            by_request[choice.sequence.request].append(column)
            y = self._y.get((choice.sequence.adapter, choice.target))
            if y is not None:
                self._rows.append(({column: 1.0, y: -1.0}, -np.inf, 0.0))
        for columns in by_request.values():
            self._rows.append((dict.fromkeys(columns, 1.0), 1.0, 1.0))
        moves = [c for c, choice in enumerate(self._choices) if not choice.stays]
        self._rows.append((dict.fromkeys(moves, 1.0), -np.inf, most_moves))

    def _move_seconds(self, column: int) -> float:
        choice = self._choices[column]
        cost = 0.0 if choice.stays else self._places[choice.target].cost_ms(choice.sequence)
        return cost / 1000

    def _fixed(self, place: Place) -> Iterable[SequenceLoad]:
        """What is there whatever is chosen."""
        free = {self._choices[c].sequence.request for c in self._chosen[place.load.id]}
        return (each for each in place.sequences.values() if each.request not in free)

    def _y_of(self, place: Place) -> list[tuple[Digest | None, int]]:
        return [(k, column) for (k, target), column in self._y.items() if target == place.load.id]


def _length(sequence: SequenceLoad) -> int:
    return sequence.tokens + sequence.tokens_left
