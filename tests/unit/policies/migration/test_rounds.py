"""A round: greedy, then the program if much is left, and nobody to and fro."""

import math
from typing import Any

import pytest

from services.core.types import RequestId
from services.policies.migration.board import Board
from services.policies.migration.greedy import Owed, balance
from services.policies.migration.loads import Debts, Reason, WorkerLoad
from services.policies.migration.model import Effort
from services.policies.migration.program import Limit, solve
from services.policies.migration.published import decide_pair, pair
from services.policies.migration.rounds import Knobs, Mover, decide
from tests.fleets import a_sequence, a_worker, after, several

pytestmark = pytest.mark.usefixtures("either_way")

GREEDY = Knobs(uneven=math.inf)


def test_nobody_moves_twice_in_a_short_time() -> None:
    mover = Mover(GREEDY)
    loads = [a_worker("one", [*several("r", 4), a_sequence("w", waits=True)]), a_worker("two")]
    back = [a_worker("one"), a_worker("two", [*several("r", 4), a_sequence("w", waits=True)])]
    assert [move.request for move in mover.plan(loads, now=0.0)] == ["w"]
    assert "w" not in [move.request for move in mover.plan(back, now=29.0)]
    assert "w" in [move.request for move in mover.plan(back, now=30.0)]


def test_who_must_go_moves_again() -> None:
    mover = Mover(GREEDY)
    mover.plan(
        [a_worker("one", [*several("r", 4), a_sequence("w", waits=True)]), a_worker("two")], 0.0
    )
    leaving = a_worker("two", [a_sequence("w", waits=True)], takes=False, draining=True)
    [move] = mover.plan([a_worker("one"), leaving], now=1.0)
    assert (move.target, move.reason) == ("one", Reason.DRAIN)


def test_who_is_forgotten_may_move() -> None:
    mover = Mover(GREEDY)
    loads = [a_worker("one", [*several("r", 4), a_sequence("w", waits=True)]), a_worker("two")]
    [first] = mover.plan(loads, now=0.0)
    mover.forget(first.request)
    assert mover.plan(loads, now=1.0) == [first]


def test_a_fleet_that_is_even_is_left_alone() -> None:
    crowd: dict[str, Any] = {"most_waiting": 9}
    loads = [
        a_worker(name, [*several(name, 4), *several(f"w{name}", 3, waits=True)], **crowd)
        for name in ("one", "two", "three")
    ]
    assert decide(loads) == []


def one_slot_for_a_large_few() -> list[WorkerLoad]:
    """The other worker has a slot for one adapter: three small requests or one large could go."""
    waiting = [*several("small", 3, "b", waits=True, left=10), a_sequence("large", "c", left=900)]
    running = several("r", 4, left=10)
    return [
        a_worker("busy", [*running, *waiting], most_waiting=9),
        a_worker("other", resident="", most_adapters=1, most_waiting=9),
    ]


def test_the_program_finds_what_greedy_does_not() -> None:
    loads = one_slot_for_a_large_few()
    assert {str(move.request) for move in decide(loads, knobs=GREEDY)} == {
        "small0", "small1", "small2",
    }  # fmt: skip
    assert [str(move.request) for move in decide(loads)] == ["large"]


def test_the_program_is_not_asked_where_little_is_left() -> None:
    loads = one_slot_for_a_large_few()
    greedy = decide(loads, knobs=GREEDY)
    assert decide(loads, knobs=Knobs(uneven=1.0)) == greedy
    assert decide(loads, knobs=Knobs(uneven=0.2)) != greedy


def test_without_time_the_answer_is_the_greedy_one() -> None:
    loads = one_slot_for_a_large_few()
    hasty = Knobs(effort=Effort(seconds=0.0))
    assert decide(loads, knobs=hasty) == decide(loads, knobs=GREEDY)


@pytest.mark.parametrize("exact", [200, 0])
def test_an_answer_that_is_no_better_is_none(exact: int) -> None:
    """1000 of 1100 tokens are the least that a worker can have, but for halves of requests."""
    waiting = [a_sequence("x", waits=True), a_sequence("y", waits=True, left=1000)]
    board = Board([a_worker("busy", waiting, most_sequences=1), a_worker("o", most_sequences=1)])
    greedy = board.copy()
    balance(greedy, Owed(), 64)
    assert 0.8 * board.makespan_ms < greedy.makespan_ms < board.makespan_ms
    limit = Limit(64, 0.8 * board.makespan_ms)
    assert solve(board, Owed(), limit, Effort(exact=exact)) is None


def test_the_program_moves_those_who_are_owed() -> None:
    board = Board([a_worker("busy", [*several("r", 4), *several("w", 2, waits=True)]),
                   a_worker("seat", most_sequences=1)])  # fmt: skip
    board.frozen |= {RequestId(f"r{number}") for number in range(4)}
    for number in ("0", "1"):
        owed = Owed(Debts({RequestId(f"w{number}"): 5.0}))
        solved = solve(board, owed, Limit(64), Effort(gap=0.0))
        assert solved is not None
        assert [str(move.request) for move in solved.moves] == [f"w{number}"]


def test_a_move_that_gains_nothing_is_not_made() -> None:
    board = Board([a_worker("one", several("r", 2)), a_worker("two", several("s", 2))])
    solved = solve(board, Owed(), Limit(64), Effort(gap=0.0))
    assert solved is None or not solved.moves


def test_what_has_no_memory_leaves_by_the_program() -> None:
    """The two would come to 1200 tokens of 1000; there is time enough on either worker."""
    there = several("r", 2, tokens=300, left=300)
    small: dict[str, Any] = {"total_tokens": 1000, "most_sequences": 2}
    solved = solve(
        Board([a_worker("small", there, **small), a_worker("other")]), Owed(), Limit(64), Effort()
    )
    assert solved is not None
    assert len(solved.moves) == 1


def test_knobs_are_checked() -> None:
    with pytest.raises(ValueError, match="most_moves"):
        Knobs(most_moves=-1)
    with pytest.raises(ValueError, match="uneven"):
        Knobs(uneven=math.nan)


def test_the_artifacts_rule_takes_the_busiest_and_the_first_that_is_not() -> None:
    crowd = a_worker("crowd", several("r", 30))
    loads = [a_worker("some", several("s", 2)), crowd, a_worker("none")]
    assert pair(loads) == (crowd, loads[0])
    assert pair([a_worker("few", several("r", 15)), a_worker("none")]) is None


def test_the_artifacts_rule_puts_memory_first() -> None:
    full = a_worker("full", [a_sequence("x", tokens=950)], total_tokens=1000)
    empty = a_worker("empty")
    assert pair([a_worker("crowd", several("r", 30)), full, empty]) == (full, empty)


def test_the_artifacts_rule_moves_between_the_pair_alone() -> None:
    loads = [
        a_worker("crowd", [*several("r", 4), *several("w", 20, waits=True)], most_waiting=99),
        a_worker("first", most_waiting=99),
        a_worker("second", most_waiting=99),
    ]
    moves = decide_pair(loads, Effort())
    assert moves
    assert not after(loads, moves)["second"]


def test_of_a_large_fleet_the_program_sees_the_busiest_and_the_least_busy() -> None:
    middle = [a_worker(f"m{n}", several(f"m{n}", 3)) for n in range(8)]
    busy = a_worker("busy", [*several("r", 4), *several("w", 4, waits=True)])
    loads = [*middle, busy, a_worker("idle")]
    limit = Limit(64, Board(loads).makespan_ms)
    alone = 2 * 8  # of one source with eight, and one target
    solved = solve(Board(loads), Owed(), limit, Effort(choices=alone))
    assert solved is not None
    assert {(move.source, move.target) for move in solved.moves} == {("busy", "idle")}
    assert solve(Board(loads), Owed(), limit, Effort(choices=alone - 1)) is None


def test_who_has_the_adapter_is_better_than_who_has_a_little_less_to_do() -> None:
    crowded = a_worker("crowded", [*several("r", 4), a_sequence("w", waits=True)], most_waiting=4)
    bare = a_worker("bare", resident="")
    knows = a_worker("knows", [a_sequence("k", left=1)])
    board = Board([crowded, bare, knows])
    source = board.places[crowded.id]
    assert board.places[bare.id].work_ms < board.places[knows.id].work_ms
    assert board.best_target(source, source.sequences[RequestId("w")]) is board.places[knows.id]


def test_who_has_more_to_do_by_now_comes_later() -> None:
    waits = [a_sequence("big", "b", left=900, waits=True), a_sequence("w", waits=True)]
    crowded = a_worker("crowded", [*several("r", 4), *waits])
    bare, filled = a_worker("bare", resident=""), a_worker("filled", [a_sequence("f", left=1)])
    board = Board([crowded, bare, filled, a_worker("knows", [a_sequence("k", left=2)])])
    source = board.places[crowded.id]
    big, small = source.sequences[RequestId("big")], source.sequences[RequestId("w")]
    board.move(big, source, board.places[filled.id], Reason.BALANCE)
    best = board.best_target(source, small)
    assert best is not None
    assert best.load.id == "knows"
