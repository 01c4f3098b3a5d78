"""Streams that run leave a crowded worker for an empty one, if all gain by it, and stay then."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from services.core.reports import StepTimes
from services.core.types import RequestId
from services.policies.migration.board import Board
from services.policies.migration.crowding import spread
from services.policies.migration.greedy import Owed
from services.policies.migration.loads import Debts, PlannedMove, WorkerLoad
from services.policies.migration.rounds import Mover, decide
from tests.fleets import a_worker, after, several

pytestmark = pytest.mark.usefixtures("either_way")
ROUND_SECONDS, STILL_SECONDS = 10.0, 30.0
OF_ALL: dict[str, Any] = {
    "most_sequences": 32, "total_tokens": 100_000, "step_times": StepTimes(20.0, 2.0, 0.1),
}  # fmt: skip


def crowded(count: int = 32, **of_each: Any) -> WorkerLoad:
    return a_worker("crowded", several("r", count, left=200, **of_each), **OF_ALL)


def test_a_worker_that_came_late_gets_about_half_of_the_streams() -> None:
    loads = [crowded(), a_worker("new", **OF_ALL)]
    there = after(loads, decide(loads))
    assert 14 <= len(there["new"]) <= 16


@pytest.mark.parametrize(
    ("times", "tokens", "load_ms", "moves"),
    [
        (StepTimes(20.0, 2.0, 0.1), 100, 50.0, True),
        (StepTimes(60.0, 0.1, 0.1), 100, 50.0, False),  # steps are hardly shorter there
        (StepTimes(20.0, 2.0, 5.0), 700, 50.0, True),  # 3.5 s to compute it again, 12 s gained
        (StepTimes(20.0, 2.0, 10.0), 700, 50.0, False),  # 7 s
        (StepTimes(20.0, 2.0, 0.1), 100, 1e6, False),  # its adapter takes long to load
    ],
)
def test_it_must_gain_more_than_twice_what_it_costs(
    times: StepTimes, tokens: int, load_ms: float, *, moves: bool
) -> None:
    of_all = {**OF_ALL, "step_times": times, "load_ms": load_ms}
    source = a_worker("crowded", several("r", 16, left=200, tokens=tokens), **of_all)
    assert bool(decide([source, a_worker("new", resident="", **of_all)])) == moves


@pytest.mark.parametrize(("streams", "moves"), [(16, False), (4, True)])
def test_those_who_are_there_already_are_slowed(streams: int, *, moves: bool) -> None:
    """One that left would gain 14 s and spare others 6 s; sixteen would lose 6.4 s, and half a
    second each while it is computed again."""
    slow = {**OF_ALL, "step_times": StepTimes(60.0, 2.0, 0.1)}
    loads = [
        a_worker("slow", several("r", 4, tokens=5000, left=1000), **slow),
        a_worker("quick", several("s", streams, left=200), **OF_ALL),
    ]
    assert bool(decide(loads)) == moves


def test_whoever_is_owed_more_goes_first() -> None:
    board = Board([crowded(8), a_worker("new", **OF_ALL)])
    spread(board, Owed(Debts({RequestId("r5"): 10.0})), most_moves=1, among=board.places)
    assert [move.request for move in board.moves] == ["r5"]


def test_who_moved_a_short_time_ago_stays() -> None:
    board = Board([crowded(8), a_worker("new", **OF_ALL)], {RequestId(f"r{n}") for n in range(7)})
    spread(board, Owed(), most_moves=64, among=board.places)
    assert [move.request for move in board.moves] == ["r7"]


def test_nobody_leaves_where_all_run_as_quickly() -> None:
    loads = [crowded(9), a_worker("other", several("s", 8, left=200), **OF_ALL)]
    assert decide(loads) == []


@pytest.mark.parametrize("counts", [[32, 0], [32, 20, 3, 0], [12, 11, 10], [30, 30, 30, 0, 0]])
def test_a_steady_load_settles(counts: list[int]) -> None:
    """What ends is followed by as much elsewhere: lengths stay, and places are those of moves."""
    loads = [
        a_worker(f"w{n}", several(f"{n}-", count, left=150 + 9 * count), **OF_ALL)
        for n, count in enumerate(counts)
    ]
    mover, moved = Mover(), dict[RequestId, list[float]]()
    last = 0.0
    for number in range(12):
        now = number * ROUND_SECONDS
        before, moves = step_seconds(loads), mover.plan(loads, now)
        loads = played(loads, moves)
        assert step_seconds(loads) < before or not moves
        for move in moves:
            moved.setdefault(move.request, []).append(now)
            last = now
    assert last <= 2 * ROUND_SECONDS
    assert all(b - a >= STILL_SECONDS for times in moved.values() for a, b in pairwise(times))


def step_seconds(loads: Sequence[WorkerLoad]) -> float:
    """Of all who run, to their ends, if none of the others ended."""
    return sum(
        each.tokens_left * load.step_times.of(len(load.sequences), 0) / 1000
        for load in loads
        for each in load.sequences
    )


def played(loads: Sequence[WorkerLoad], moves: Sequence[PlannedMove]) -> list[WorkerLoad]:
    """Everybody is where they were sent to."""
    by_request = {each.request: each for load in loads for each in load.sequences}
    there = after(loads, moves)
    return [
        replace(load, sequences=tuple(by_request[RequestId(r)] for r in sorted(there[load.id])))
        for load in loads
    ]
