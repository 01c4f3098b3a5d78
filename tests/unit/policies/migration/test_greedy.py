"""Greedy moves: who must go, who waits, and who runs if that pays."""

from typing import Any

import pytest

from services.core.types import RequestId
from services.policies.migration.board import Board
from services.policies.migration.greedy import Owed, balance, make_room
from services.policies.migration.loads import Debts, PlannedMove, Reason, WorkerLoad
from tests.fleets import a_sequence, a_worker, after, several

MANY = 64


def moves_of(loads: list[WorkerLoad], owed: Owed | None = None, most: int = MANY) -> list[str]:
    return [f"{move.request} to {move.target}" for move in planned(loads, owed, most)]


def planned(
    loads: list[WorkerLoad], owed: Owed | None = None, most: int = MANY
) -> list[PlannedMove]:
    board = Board(loads)
    make_room(board, owed or Owed(), most)
    balance(board, owed or Owed(), most)
    return board.moves


def test_who_waits_goes_where_it_starts_at_once() -> None:
    loads = [a_worker("busy", [*several("r", 4), *several("w", 3, waits=True)]), a_worker("idle")]
    assert moves_of(loads) == ["w0 to idle", "w1 to idle", "w2 to idle"]


def test_the_largest_group_of_one_adapter_goes_first() -> None:
    waiting = [*several("few", 1, "b", waits=True), *several("many", 2, "c", waits=True)]
    loads = [a_worker("busy", [*several("r", 4), *waiting]), a_worker("idle", most_sequences=2)]
    assert moves_of(loads) == ["many0 to idle", "many1 to idle"]


def test_it_goes_to_the_least_busy() -> None:
    loads = [
        a_worker("busy", [*several("r", 4), a_sequence("w", waits=True)]),
        a_worker("less", several("s", 2)),
        a_worker("least", several("t", 2, left=50)),
    ]
    assert moves_of(loads) == ["w to least"]


def test_a_worker_that_has_the_adapter_is_preferred_by_its_load() -> None:
    loads = [
        a_worker("busy", [*several("r", 4), a_sequence("w", waits=True)]),
        a_worker("without", resident=""),
        a_worker("with"),
    ]
    assert moves_of(loads) == ["w to with"]


def test_nobody_moves_between_workers_with_seats() -> None:
    assert not moves_of([a_worker("three", several("r", 3)), a_worker("none")])


def test_nobody_goes_to_wait_where_requests_are_bound_late() -> None:
    busy = a_worker("busy", [*several("r", 4), *several("w", 9, waits=True)])
    less = several("s", 4)
    assert not moves_of([busy, a_worker("less", less)])
    assert moves_of([busy, a_worker("less", less, most_waiting=9)])


def test_lines_are_evened_out() -> None:
    busy = [*several("r", 4), *several("w", 8, waits=True)]
    loads = [
        a_worker("busy", busy, most_waiting=9),
        a_worker("less", several("s", 4), most_waiting=9),
    ]
    there = after(loads, planned(loads))
    assert [len(there["busy"]), len(there["less"])] == [8, 8]


@pytest.mark.parametrize(("tokens", "move_ms", "moves"), [
    (100, None, True),  # computed anew in 10 ms
    (10_000, None, False),  # in 1000 ms
    (10_000, 0.01, True),  # moved in 100 ms
    (10_000, 1.0, False),  # it may be computed, and is no cheaper
])  # fmt: skip
def test_who_runs_moves_if_it_gains_twice_what_the_cheaper_way_costs(
    tokens: int, move_ms: float | None, *, moves: bool
) -> None:
    """Seats for one: the other, which has begun and was preempted, stands in line. Its 100 tokens
    take 2010 ms on either worker."""
    of_all: dict[str, Any] = {"most_sequences": 1, "total_tokens": 100_000, "move_ms": move_ms}
    crowded = [a_sequence("x", tokens=tokens), a_sequence("y", tokens=tokens)]
    loads = [a_worker("crowded", crowded, **of_all), a_worker("idle", **of_all)]
    assert bool(moves_of(loads)) == moves


def test_those_that_move_together_share_the_load_of_their_adapter() -> None:
    """1100 ms are too much for one that gains 2020, and not for two that gain 2920."""
    of_all: dict[str, Any] = {"most_sequences": 2, "load_ms": 1100.0}

    def moved(count: int) -> int:
        crowded = a_worker("crowded", several("x", 4 + count, left=200), **of_all)
        return len(moves_of([crowded, a_worker("idle", resident="", **of_all)]))

    assert not moved(-1)
    assert moved(0) == 2


def test_everything_leaves_a_worker_that_drains() -> None:
    leaving = [*several("r", 2), *several("w", 2, "b", waits=True)]
    loads = [a_worker("leaving", leaving, takes=False, draining=True), a_worker("other")]
    moves = planned(loads)
    assert not after(loads, moves)["leaving"]
    assert {move.reason for move in moves} == {Reason.DRAIN}
    assert [str(move.request)[0] for move in moves] == ["w", "w", "r", "r"]


def test_as_much_leaves_as_there_is_room_for() -> None:
    loads = [
        a_worker("leaving", several("r", 6), takes=False, draining=True, most_sequences=6),
        a_worker("other", several("s", 1)),
    ]
    assert len(planned(loads)) == 3


def test_who_would_not_fit_leaves_a_worker_whose_memory_ends() -> None:
    """600 tokens are to come and 300 free."""
    short = [a_sequence("x", left=100), a_sequence("y", left=500)]
    loads = [a_worker("short", short, free_tokens=300), a_worker("other")]
    [move] = planned(loads)
    assert (move.request, move.reason) == ("y", Reason.MEMORY)


def test_who_has_enough_memory_for_all_keeps_them() -> None:
    there = [a_sequence("x", left=100), a_sequence("y", left=100)]
    assert not moves_of([a_worker("tight", there, free_tokens=300), a_worker("other")])


def test_there_must_be_room_for_what_it_will_hold_in_the_end() -> None:
    busy = a_worker("busy", [*several("r", 4), a_sequence("w", waits=True)])
    assert moves_of([busy, a_worker("other", free_tokens=200)])
    assert not moves_of([busy, a_worker("other", free_tokens=199)])
    other = a_worker("other", [a_sequence("s", left=50)], free_tokens=249)
    assert not moves_of([busy, other]), "50 of them are to come for what runs there"


def test_room_is_given_once() -> None:
    busy = a_worker("busy", [*several("r", 4), *several("w", 2, waits=True)])
    assert len(moves_of([busy, a_worker("other", free_tokens=400)])) == 2
    assert len(moves_of([busy, a_worker("other", free_tokens=399)])) == 1


def test_an_adapter_that_is_not_there_takes_memory_too() -> None:
    busy = a_worker("busy", [*several("r", 4), a_sequence("w", waits=True)])
    of_other: dict[str, Any] = {"resident": "b", "adapter_tokens": 10}
    assert moves_of([busy, a_worker("other", free_tokens=210, **of_other)])
    assert not moves_of([busy, a_worker("other", free_tokens=209, **of_other)])


def test_an_adapter_needs_a_slot() -> None:
    busy = a_worker("busy", [*several("r", 4, "c"), a_sequence("w", "c", waits=True)])
    using = [a_sequence("s", "a"), a_sequence("t", "b")]
    assert moves_of([busy, a_worker("other", using, resident="ab", most_adapters=3)])
    assert not moves_of([busy, a_worker("other", using, resident="ab", most_adapters=2)])


def test_an_idle_adapter_gives_its_slot() -> None:
    busy = a_worker("busy", [*several("r", 4), a_sequence("w", "c", waits=True)])
    other = a_worker("other", [a_sequence("s", "a")], resident="ab", most_adapters=2)
    assert moves_of([busy, other])


@pytest.mark.parametrize("other", [{"takes": False}, {"base": "another"}])
def test_nobody_goes_where_it_may_not(other: dict[str, Any]) -> None:
    busy = a_worker("busy", [*several("r", 4), *several("w", 3, waits=True)])
    assert not moves_of([busy, a_worker("other", **other)])


def test_whoever_is_owed_more_moves_first() -> None:
    loads = [
        a_worker("busy", [*several("r", 4), *several("w", 3, waits=True)]),
        a_worker("one seat", most_sequences=1),
    ]
    debts = Debts({RequestId("w1"): 10.0, RequestId("w2"): 20.0})
    assert moves_of(loads, Owed(debts)) == ["w2 to one seat"]
    assert moves_of(loads) == ["w0 to one seat"]


def test_what_is_owed_weighs_against_the_size_of_groups() -> None:
    waiting = [*several("many", 2, "b", waits=True), *several("owed", 1, "c", waits=True)]
    loads = [a_worker("busy", [*several("r", 4), *waiting]), a_worker("seat", most_sequences=1)]
    debts = Debts({RequestId("owed0"): 1000.0})
    assert moves_of(loads, Owed(debts, weight=0.0001)) == ["many0 to seat"]
    assert moves_of(loads, Owed(debts, weight=0.01)) == ["owed0 to seat"]


def test_a_round_has_so_many_moves() -> None:
    loads = [a_worker("busy", [*several("r", 4), *several("w", 3, waits=True)]), a_worker("idle")]
    assert len(moves_of(loads, most=2)) == 2
