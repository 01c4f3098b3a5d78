"""The rule of dLoRA's artifact (OSDI'24), to compare with: one pair of workers in a round, the
fullest or busiest and the first that is not, and the program between them."""

from collections.abc import Sequence

from services.policies.migration.board import Board
from services.policies.migration.greedy import Owed
from services.policies.migration.loads import PlannedMove, WorkerLoad
from services.policies.migration.model import Effort
from services.policies.migration.program import Limit, solve

FULL = 0.9  # of a worker's memory
MANY = 16  # requests above the mean, a batch


def pair(loads: Sequence[WorkerLoad]) -> tuple[WorkerLoad, WorkerLoad] | None:
    """Where from and where to, or both ways; None if nothing is wrong."""
    if len(loads) < 2:
        return None
    fullest, emptiest = max(loads, key=_fullness), min(loads, key=_fullness)
    if _fullness(fullest) >= FULL > _fullness(emptiest):
        return fullest, emptiest
    mean = sum(len(load.sequences) for load in loads) / len(loads)
    busiest = max(loads, key=lambda load: len(load.sequences))
    if len(busiest.sequences) - mean < MANY:
        return None
    return busiest, next(load for load in loads if len(load.sequences) < mean)


def decide_pair(loads: Sequence[WorkerLoad], effort: Effort) -> list[PlannedMove]:
    """However many moves come of it, and however often."""
    found = pair(loads)
    if found is None:
        return []
    board = Board(found)
    every = sum(len(load.sequences) for load in found)
    solved = solve(board, Owed(), Limit(every, board.makespan_ms), effort)
    return [] if solved is None else solved.moves


def _fullness(load: WorkerLoad) -> float:
    return 1 - load.free_tokens / load.total_tokens
