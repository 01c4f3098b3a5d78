"""A round without the program: in C where a compiler is at hand, else its reference."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from services.core.types import RequestId
from services.policies.migration.board import Board
from services.policies.migration.crowding import left_by_some, spread
from services.policies.migration.greedy import Owed, balance, make_room
from services.policies.migration.loads import PlannedMove, WorkerLoad
from services.policies.migration.native.module import module


class Greedy(NamedTuple):
    """What moves; what the busiest worker had to do, and by how much more than others, before
    anything left a crowd."""

    moves: list[PlannedMove]
    makespan_ms: float
    imbalance: float


def play(
    loads: Sequence[WorkerLoad], frozen: Collection[RequestId], owed: Owed, most_moves: int
) -> Greedy:
    native = module()
    if native is not None:
        played = native.play(
            loads, frozenset(frozen), dict(owed.debts.owed), owed.weight, most_moves
        )
        if played is not None:
            return Greedy(*played)
    return reference(loads, frozen, owed, most_moves)


def reference(
    loads: Sequence[WorkerLoad], frozen: Collection[RequestId], owed: Owed, most_moves: int
) -> Greedy:
    """Also of what is odd: requests or workers that are named twice, numbers that are negative or
    beyond all reason."""
    board = Board(loads, frozen)
    left = left_by_some(board.places.values())
    make_room(board, owed, most_moves)
    balance(board, owed, most_moves)
    makespan_ms, imbalance = board.makespan_ms, board.imbalance
    spread(board, owed, most_moves, left)
    return Greedy(board.moves, makespan_ms, imbalance)
