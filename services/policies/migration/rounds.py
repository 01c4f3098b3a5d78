"""What moves in a round: who must, then greedily, then by the program if much is left uneven, and
then from crowded workers to others."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from services.core.types import RequestId
from services.policies.migration.board import Board
from services.policies.migration.crowding import left_by_some, spread
from services.policies.migration.greedy import NO_DEBTS, Owed, make_room
from services.policies.migration.greedy_round import play
from services.policies.migration.loads import Debts, PlannedMove, WorkerLoad
from services.policies.migration.model import Effort
from services.policies.migration.program import Limit, solve


@dataclass(frozen=True, slots=True)
class Knobs:
    """`most_moves`: in a round. `still_seconds`: how long who moved stays, unless it must go.
    `uneven`: how much longer than on average the busiest worker may take before the program is
    asked; infinity: it never is. `owed_weight`: lambda, see `Owed`. Raises ValueError."""

    most_moves: int = 64
    still_seconds: float = 30.0
    uneven: float = 0.2
    owed_weight: float = 1e-4
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        if self.most_moves < 0:
            raise ValueError("most_moves must be at least 0")
        for name in ("still_seconds", "uneven", "owed_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0")


def decide(
    loads: Sequence[WorkerLoad],
    *,
    frozen: Collection[RequestId] = (),
    debts: Debts = NO_DEBTS,
    knobs: Knobs | None = None,
) -> list[PlannedMove]:
    """Takes up to the seconds of `knobs.effort` and knows nothing but its arguments: it may run in
    another thread."""
    knobs = knobs or Knobs()
    owed = Owed(debts, knobs.owed_weight)
    greedy = play(loads, frozen, owed, knobs.most_moves)
    if greedy.imbalance <= knobs.uneven:
        return greedy.moves
    solved = _by_program(Board(loads, frozen), owed, knobs, greedy.makespan_ms)
    return greedy.moves if solved is None else solved.moves


def _by_program(board: Board, owed: Owed, knobs: Knobs, below_milliseconds: float) -> Board | None:
    left = left_by_some(board.places.values())
    make_room(board, owed, knobs.most_moves)
    limit = Limit(knobs.most_moves - len(board.moves), below_milliseconds)
    solved = solve(board, owed, limit, knobs.effort)
    if solved is not None:
        spread(solved, owed, knobs.most_moves, left)
    return solved


class Mover:
    """Remembers who moved when, so that nobody moves to and fro."""

    def __init__(self, knobs: Knobs | None = None) -> None:
        self._knobs = knobs or Knobs()
        self._moved: dict[RequestId, float] = {}

    def plan(
        self, loads: Sequence[WorkerLoad], now: float, debts: Debts = NO_DEBTS
    ) -> list[PlannedMove]:
        """Whose moves begin now; who may not move at all is told so by `forget` later."""
        moves = decide(loads, frozen=self.frozen(now), debts=debts, knobs=self._knobs)
        self.moved(moves, now)
        return moves

    def frozen(self, now: float) -> frozenset[RequestId]:
        """Who moved a short time ago."""
        since = now - self._knobs.still_seconds
        self._moved = {request: at for request, at in self._moved.items() if at > since}
        return frozenset(self._moved)

    def moved(self, moves: Sequence[PlannedMove], now: float) -> None:
        """For those who decide elsewhere."""
        self._moved |= {move.request: now for move in moves}

    def forget(self, request: RequestId) -> None:
        """It ended, or its move did not come about."""
        self._moved.pop(request, None)
