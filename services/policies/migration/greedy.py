"""What moves first, and mostly all that moves: who must go, then from the busiest worker to the
least busy, requests that have not begun before those that have."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from services.core.reports import SequenceLoad
from services.core.types import Digest, RequestId
from services.policies.migration.board import Board
from services.policies.migration.loads import Debts, Reason
from services.policies.migration.place import Place, added, gain_ms

NO_DEBTS = Debts()
MIN_GAIN_OVER_COST = 2.0  # of what has begun: predictions err
MEMORY_SHORT = 0.1  # of the pool, from where on a worker may run out

Worth = tuple[float, float]
"""What a move gains and costs, in milliseconds."""
Judge = Callable[[Place, Place, SequenceLoad], Worth | None]
"""Of one more that goes from a place to another, after those before it; None: it must not."""


@dataclass(frozen=True, slots=True)
class Owed:
    """Puts whoever is owed more first; `weight` is lambda: service owed that counts as much as one
    more request of an adapter does."""

    debts: Debts = NO_DEBTS
    weight: float = 1e-4

    def of(self, request: RequestId) -> float:
        return max(0.0, self.debts.owed.get(request, 0.0))

    def first(self, sequences: Iterable[SequenceLoad]) -> list[SequenceLoad]:
        """Of those owed the same, as they were."""
        if not self.debts.owed:
            return list(sequences)
        return sorted(sequences, key=lambda each: -self.of(each.request))

    def groups(self, sequences: Iterable[SequenceLoad]) -> list[list[SequenceLoad]]:
        """By adapter, the largest first, and in each whoever is owed more."""
        groups: defaultdict[Digest | None, list[SequenceLoad]] = defaultdict(list)
        for each in sequences:
            groups[each.adapter].append(each)
        return sorted(map(self.first, groups.values()), key=self._size, reverse=True)

    def _size(self, group: list[SequenceLoad]) -> float:
        if not self.debts.owed:
            return len(group)
        return len(group) + self.weight * added(self.of(each.request) for each in group)


def make_room(board: Board, owed: Owed, most_moves: int) -> None:
    """Who must go: everything on workers that drain, what has not begun first; on others what
    there will be no memory for."""
    for source in [place for place in board.places.values() if place.load.draining]:
        groups = owed.groups(source.sequences.values())
        for each in sorted(
            (each for group in groups for each in group), key=lambda e: not e.waiting
        ):
            if len(board.moves) < most_moves:
                _move_to_best(board, source, each, Reason.DRAIN)
    for source in list(board.places.values()):
        _relieve(board, source, owed, most_moves)


def _relieve(board: Board, source: Place, owed: Owed, most_moves: int) -> None:
    """Until what runs there could end there: whoever has most to come for what its move costs."""
    load = source.load
    running = [each for each in load.sequences if not each.waiting]
    short = sum(each.tokens_left for each in running if each.request in source.sequences)
    short -= load.free_tokens
    if load.free_tokens >= MEMORY_SHORT * load.total_tokens or short <= 0:
        return
    able = [each for each in running if each.request not in board.frozen]
    for each in sorted(owed.first(able), key=lambda e: -e.tokens_left / max(1, e.tokens)):
        if short <= 0 or len(board.moves) >= most_moves:
            return
        if _move_to_best(board, source, each, Reason.MEMORY):
            short -= each.tokens + each.tokens_left


def _move_to_best(board: Board, source: Place, sequence: SequenceLoad, reason: Reason) -> bool:
    target = board.best_target(source, sequence)
    if target is not None:
        board.move(sequence, source, target, reason)
    return target is not None


def balance(board: Board, owed: Owed, most_moves: int) -> None:
    """Takes work from the busiest worker as long as that shortens what the busiest has to do."""
    even_out(board, most_moves, lambda source: _move_waiting(board, source, owed, most_moves))
    even_out(board, most_moves, lambda source: _move_running(board, source, owed, most_moves))


def even_out(board: Board, most_moves: int, move_from: Callable[[Place], bool]) -> None:
    """Until nothing can be moved from any; the busiest is asked first, each time."""
    numbers = {worker: number for number, worker in enumerate(board.places)}
    asked = [(-place.work_ms, numbers[worker]) for worker, place in board.places.items()]
    heapify(asked)
    places, done = list(board.places.values()), set[int]()
    while asked and len(board.moves) < most_moves:
        work, number = heappop(asked)
        if number in done or places[number].work_ms != -work:
            continue  # it has another entry
        moved = len(board.moves)
        if not move_from(places[number]):
            done.add(number)
        for worker in {w for move in board.moves[moved:] for w in (move.source, move.target)}:
            heappush(asked, (-board.places[worker].work_ms, numbers[worker]))


def _move_waiting(board: Board, source: Place, owed: Owed, most_moves: int) -> bool:
    """Of one adapter, as many as are worth it."""
    waiting = (each for each in source.sequences.values() if each.waiting)
    for group in owed.groups(each for each in waiting if each.request not in board.frozen):
        moved = len(board.moves)
        for each in group:
            if len(board.moves) >= most_moves or not _move_if_sooner(board, source, each):
                break
        if len(board.moves) > moved:
            return True
    return False


def _move_if_sooner(board: Board, source: Place, sequence: SequenceLoad) -> bool:
    target = board.best_target(source, sequence) if source.has_line else None
    if target is None:
        return False
    gain = gain_ms(source, target, sequence)
    if gain <= 0:
        return False
    board.move(sequence, source, target, Reason.BALANCE, gain)
    return True


def _move_running(board: Board, source: Place, owed: Owed, most_moves: int) -> bool:
    return source.has_line and move_together(board, source, owed, most_moves, _out_of_a_line)


def _out_of_a_line(source: Place, target: Place, sequence: SequenceLoad) -> Worth | None:
    gain = gain_ms(source, target, sequence)
    if not source.has_line or gain <= 0 or not target.has_room(sequence):
        return None
    return gain, target.cost_ms(sequence) + target.load_ms(sequence.adapter)


def move_together(board: Board, source: Place, owed: Owed, most_moves: int, judge: Judge) -> bool:
    """Of what runs with one adapter, as many together as gain more than twice what they cost, the
    load that they share among it."""
    running = [each for each in source.sequences.values() if not each.waiting]
    for group in owed.groups(each for each in running if each.request not in board.frozen):
        target = board.best_target(source, group[0])
        if target is None:
            continue
        chosen = _worth_it(source, target, group[: most_moves - len(board.moves)], judge)
        for each, gain in chosen:
            board.move(each, source, target, Reason.BALANCE, gain)
        if chosen:
            return True
    return False


def _worth_it(
    source: Place, target: Place, group: list[SequenceLoad], judge: Judge
) -> list[tuple[SequenceLoad, float]]:
    """The most that are worth it, and what each gains."""
    before, after = source.copy(), target.copy()
    chosen: list[tuple[SequenceLoad, float]] = []
    gains, costs, worth = 0.0, 0.0, 0
    for each in group:
        judged = judge(before, after, each)
        if judged is None:
            break
        gains, costs = gains + judged[0], costs + judged[1]
        before.give(each)
        after.take(each)
        chosen.append((each, judged[0]))
        if gains > MIN_GAIN_OVER_COST * costs:
            worth = len(chosen)
    return chosen[:worth]
