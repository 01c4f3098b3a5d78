"""dLoRA's integer program of co-migration (OSDI'24), over all workers at once."""

from dataclasses import dataclass

import numpy as np

from services.policies.migration.board import Board
from services.policies.migration.greedy import Owed
from services.policies.migration.loads import Reason
from services.policies.migration.model import Choice, Effort, Model, choices_of
from services.policies.migration.place import gain_ms


@dataclass(frozen=True, slots=True)
class Limit:
    """Of an answer: moves, and when the busiest worker must be done."""

    moves: int
    milliseconds: float = np.inf


def solve(board: Board, owed: Owed, limit: Limit, effort: Effort) -> Board | None:
    """The board after the program's moves; None if it finds none within the limit in its time. Of
    a fleet that is too large it sees who is busiest and least busy.

    Where x was relaxed a request goes where its largest part is, and stays if no room is left.
    """
    seen, rest_ms = _part(board, effort.choices)
    if limit.moves < 1 or rest_ms >= limit.milliseconds:
        return None
    choices = choices_of(seen)
    if all(choice.stays for choice in choices):
        return None
    model = Model(seen, choices, owed, most_moves=limit.moves)
    parts = model.solve(effort, below_seconds=limit.milliseconds / 1000)
    if parts is None:
        return None
    solved = board.copy()
    for choice in _rounded(choices, parts):
        _play(solved, choice)
    return solved if solved.makespan_ms < limit.milliseconds else None


def _part(board: Board, most: int) -> tuple[Board, float]:
    """What has up to so many choices, and the most that others have to do, in milliseconds."""
    places = sorted(board.places.values(), key=lambda place: -place.work_ms)
    movable = [len(place.sequences) if place.has_line else 0 for place in places]
    if sum(movable) * len(places) <= most:
        return board, 0.0
    sources, sequences = 0, 0
    while 2 * (sources + 1) * (sequences + movable[sources]) <= most:
        sequences += movable[sources]
        sources += 1
    busiest = places[:sources]
    base = {place.load.base for place in busiest}
    able = [place for place in places[sources:] if place.may_take and place.load.base in base]
    seen = {place.load.id for place in [*busiest, *able[max(0, len(able) - sources) :]]}
    rest_ms = max((place.work_ms for place in places if place.load.id not in seen), default=0.0)
    return board.copy(worker for worker in board.places if worker in seen), rest_ms


def _rounded(choices: list[Choice], parts: list[float]) -> list[Choice]:
    """Moves: what runs, which has less room, before what waits, and whole ones before parts."""
    best: dict[str, tuple[float, Choice]] = {}
    for choice, part in zip(choices, parts, strict=True):
        request = choice.sequence.request
        if request not in best or part > best[request][0] + 1e-9:
            best[request] = part, choice
    moves = [(part, choice) for part, choice in best.values() if not choice.stays]
    moves.sort(key=lambda move: (move[1].sequence.waiting, -move[0]))
    return [choice for _, choice in moves]


def _play(board: Board, choice: Choice) -> None:
    source, target = board.places[choice.source], board.places[choice.target]
    if not target.has_room(choice.sequence):
        return
    gain = max(0.0, gain_ms(source, target, choice.sequence))
    board.move(choice.sequence, source, target, Reason.BALANCE, gain)
