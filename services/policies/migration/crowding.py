"""Streams leave a crowded worker for one whose steps are shorter, though nobody waits: where a
worker came late, all would else stay where they began."""

from collections.abc import Collection, Iterable

from services.core.reports import SequenceLoad
from services.core.types import WorkerId
from services.policies.migration.board import Board
from services.policies.migration.greedy import Owed, Worth, even_out, move_together
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
        if not is_crowded or source.has_line:
            return False
        return move_together(board, source, owed, most_moves, _out_of_a_crowd)

    even_out(board, most_moves, move_from)


def _least_ms(places: Iterable[Place]) -> float:
    """Of a step anywhere, with one sequence more: it only grows in a round."""
    return min((_step_ms(place, 1) for place in places if place.may_take), default=float("inf"))


def _out_of_a_crowd(source: Place, target: Place, sequence: SequenceLoad) -> Worth | None:
    """The busier of the two workers is not to be busier after it."""
    gain = _gain_ms(source, target, sequence)
    is_busier = target.work_ms_with(sequence) > source.work_ms
    starts = target.has_room(sequence) and target.starts(sequence)
    if gain <= 0 or is_busier or not starts:
        return None
    again = target.cost_ms(sequence) * (1 + target.count)
    return gain, again + target.load_ms(sequence.adapter)


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
