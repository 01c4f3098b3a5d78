"""Streams leave a crowded worker for one whose steps are shorter, though nobody waits: where a
worker came late, all would else stay where they began."""

from collections.abc import Collection, Iterable

from services.core.reports import SequenceLoad
from services.core.types import WorkerId
from services.policies.migration.board import Board
from services.policies.migration.greedy import MIN_GAIN_OVER_COST, Owed, even_out
from services.policies.migration.loads import Reason
from services.policies.migration.place import Place

LEAST_SHORTER = 0.1  # of a step, by which it must be shorter there: predictions err


def left_by_some(places: Iterable[Place]) -> set[WorkerId]:
    """Workers that anything may leave for balance: who has a line, and who is crowded."""
    places = list(places)
    least_ms = _least_ms(places)
    return {e.load.id for e in places if e.has_line or _is_shorter(least_ms, e)}


def spread(board: Board, owed: Owed, most_moves: int, among: Collection[WorkerId]) -> None:
    """As long as all that run together are done so much sooner that it is worth the moves. `among`:
    whom they may leave."""
    least_ms = _least_ms(board.places.values())

    def move_from(source: Place) -> bool:
        is_crowded = source.load.id in among and _is_shorter(least_ms, source)
        return is_crowded and not source.has_line and _move_from(board, source, owed, most_moves)

    even_out(board, most_moves, move_from)


def _least_ms(places: Iterable[Place]) -> float:
    """Of a step anywhere, with one sequence more: it only grows in a round."""
    return min((_step_ms(place, 1) for place in places if place.may_take), default=float("inf"))


def _move_from(board: Board, source: Place, owed: Owed, most_moves: int) -> bool:
    """Of one adapter, as many together as are worth the load that they share."""
    able = [e for e in source.sequences.values() if not (e.waiting or e.request in board.frozen)]
    for group in owed.groups(able):
        target = board.best_target(source, group[0])
        room = most_moves - len(board.moves)
        chosen = [] if target is None else _worth_it(source, target, group[:room])
        for each, gain in chosen:
            assert target is not None
            board.move(each, source, target, Reason.BALANCE, gain)
        if chosen:
            return True
    return False


def _worth_it(
    source: Place, target: Place, group: list[SequenceLoad]
) -> list[tuple[SequenceLoad, float]]:
    """The most that gain more than twice what they cost, and what each gains. The busier of the two
    workers is not to be busier after it."""
    before, after = source.copy(), target.copy()
    chosen: list[tuple[SequenceLoad, float]] = []
    gains, costs, worth = 0.0, 0.0, 0
    for each in group:
        gain = _gain_ms(before, after, each)
        is_busier = after.work_ms_with(each) > before.work_ms
        if gain <= 0 or is_busier or not (after.has_room(each) and after.starts(each)):
            break
        gains += gain
        costs += after.cost_ms(each) * (1 + after.count) + after.load_ms(each.adapter)
        before.give(each)
        after.take(each)
        chosen.append((each, gain))
        if gains > MIN_GAIN_OVER_COST * costs:
            worth = len(chosen)
    return chosen[:worth]


def _gain_ms(source: Place, target: Place, sequence: SequenceLoad) -> float:
    """Of all who are at either, to their ends; 0 if its own steps are not much shorter there."""
    there_ms = _step_ms(target, 1)
    if not _is_shorter(there_ms, source):
        return 0.0
    own = sequence.tokens_left * (_step_ms(source, 0) - there_ms)
    spared = _tokens_left(source) - sequence.tokens_left
    return (
        own
        + spared * source.load.step_times.sequence
        - _tokens_left(target) * target.load.step_times.sequence
    )


def _is_shorter(step_ms: float, source: Place) -> bool:
    return step_ms < (1 - LEAST_SHORTER) * _step_ms(source, 0)


def _step_ms(place: Place, more: int) -> float:
    """Of a step with so many sequences more."""
    return place.load.step_times.of(place.count + more, 0)


def _tokens_left(place: Place) -> int:
    others = place.load.others
    named = sum(each.tokens_left for each in place.sequences.values())
    return named + others.running.tokens_left + others.waiting.tokens_left
