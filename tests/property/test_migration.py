"""Rounds of migration in any fleet: nobody is lost or sent where no room is, the program is close
to the best there is (D12), and a round's effort grows with the fleet, not faster."""

import math
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.reports import SequenceLoad, SequenceSums, StepTimes
from services.core.types import Digest, Fingerprint, RequestId, WorkerId
from services.policies.migration.board import Board
from services.policies.migration.greedy import Owed
from services.policies.migration.greedy_round import reference
from services.policies.migration.loads import Debts, Reason, WorkerLoad
from services.policies.migration.rounds import Knobs, Mover, decide
from services.policies.migration.sources import sources
from tests.fleets import a_worker, after, assert_room, several

pytestmark = pytest.mark.usefixtures("either_way")

ADAPTERS = st.sampled_from([None, *map(Digest, "abc")])
GREEDY = Knobs(uneven=math.inf)

sequences = st.builds(
    SequenceLoad,
    request=st.just(RequestId("")),  # named below
    adapter=ADAPTERS,
    tokens=st.integers(1, 300),
    tokens_left=st.integers(1, 300),
    waiting=st.booleans(),
)


@st.composite
def workers(draw: st.DrawFn, number: int = 0) -> WorkerLoad:
    there = [
        SequenceLoad(RequestId(f"{number}-{n}"), s.adapter, s.tokens, s.tokens_left, s.waiting)
        for n, s in enumerate(draw(st.lists(sequences, max_size=8)))
    ]
    held = sum(each.tokens for each in there if not each.waiting)
    free = draw(st.integers(0, 1500))
    draining = draw(st.sampled_from([False, False, True]))
    return WorkerLoad(
        id=WorkerId(str(number)),
        base=draw(
            st.sampled_from([Fingerprint("base"), Fingerprint("base"), Fingerprint("other")])
        ),
        sequences=tuple(there),
        most_sequences=draw(st.integers(1, 6)),
        total_tokens=held + free + draw(st.integers(0, 500)) + 1,
        free_tokens=free,
        resident=frozenset(draw(st.sets(st.sampled_from([*map(Digest, "abc")])))),
        step_times=StepTimes(draw(st.sampled_from([5.0, 20.0])), 0.1, 0.2),
        load_ms=draw(st.sampled_from([0.0, 30.0, 500.0])),
        move_ms=draw(st.sampled_from([None, 0.01, 1.0])),
        takes=not draining and draw(st.sampled_from([True, True, False])),
        draining=draining,
        most_waiting=draw(st.sampled_from([0, 4])),
        most_adapters=draw(st.sampled_from([None, 1, 2])),
        adapter_tokens=draw(st.sampled_from([0, 40])),
    )


fleets = st.integers(1, 4).flatmap(lambda count: st.tuples(*(workers(n) for n in range(count))))
knobs = st.sampled_from([GREEDY, Knobs(), Knobs(uneven=0.0, most_moves=3)])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(loads=fleets, of=knobs, data=st.data())
def test_a_round_loses_nobody_and_exceeds_nothing(
    loads: tuple[WorkerLoad, ...], of: Knobs, data: st.DataObject
) -> None:
    requests = [each.request for load in loads for each in load.sequences]
    frozen = data.draw(st.sets(st.sampled_from(requests))) if requests else set()
    moves = decide(loads, frozen=frozen, knobs=of)
    assert len(moves) <= of.most_moves
    assert max(Counter(move.request for move in moves).values(), default=0) <= 1
    there = after(loads, moves)  # fails if somebody is not where he is said to leave from
    assert sorted(r for each in there.values() for r in each) == sorted(map(str, requests))
    by_id = {load.id: load for load in loads}
    for move in moves:
        assert move.source != move.target
        assert by_id[move.target].takes
        assert by_id[move.target].base == by_id[move.source].base
        assert move.request not in frozen or move.reason is Reason.DRAIN
        assert (move.reason is Reason.DRAIN) == by_id[move.source].draining
    for load in loads:
        assert_room(load, loads, moves)


def by_sums(load: WorkerLoad) -> WorkerLoad:
    """As of a worker that has not named its sequences."""
    used = frozenset(each.adapter for each in load.sequences if each.adapter is not None)
    sums = SequenceSums.of(load.sequences)
    return replace(load, sequences=(), others=sums, in_use=used)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(loads=fleets, of=knobs)
def test_who_need_not_name_its_sequences_changes_no_move(
    loads: tuple[WorkerLoad, ...], of: Knobs
) -> None:
    asked = sources(map(by_sums, loads))
    known = [load if load.id in asked else by_sums(load) for load in loads]
    assert decide(known, knobs=of) == decide(loads, knobs=of)


def test_only_the_busiest_of_those_with_a_line_are_asked() -> None:
    """And whoever drains."""
    busy = [a_worker(f"w{n}", several(f"{n}-", 4 + n)) for n in range(4)]
    fleet = [
        *busy,
        a_worker("full", several("f", 4)),
        a_worker("old", several("o", 1), draining=True, takes=False),
        a_worker("gone", draining=True, takes=False),
    ]
    assert sources(map(by_sums, fleet), most=2) == {"w2", "w3", "old"}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(loads=fleets, of=knobs)
def test_the_best_target_is_that_of_a_look_at_each(
    loads: tuple[WorkerLoad, ...], of: Knobs
) -> None:
    """In any fleet, and as moves are made."""
    board = Board(loads)
    for move in [None, *decide(loads, knobs=of)]:
        if move is not None:
            source = board.places[move.source]
            moved = source.sequences[move.request]
            board.move(moved, source, board.places[move.target], move.reason)
        for source in board.places.values():
            for each in source.sequences.values():
                able = [
                    place
                    for place in board.places.values()
                    if place is not source
                    and place.load.base == source.load.base
                    and place.has_room(each)
                ]
                keys = [(not place.starts(each), place.work_ms_with(each)) for place in able]
                best = able[keys.index(min(keys))] if able else None
                assert board.best_target(source, each) is best
                assert board.targets(source, each) == able


@settings(max_examples=50, deadline=None, derandomize=True)
@given(loads=fleets, of=knobs)
def test_a_round_is_a_function_of_what_it_is_told(loads: tuple[WorkerLoad, ...], of: Knobs) -> None:
    assert decide(loads, knobs=of) == decide(loads, knobs=of)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(loads=fleets)
def test_the_busiest_is_never_busier_afterwards(loads: tuple[WorkerLoad, ...]) -> None:
    """But for those who must go."""
    staying = [load for load in loads if not load.draining]
    tight = any(load.free_tokens < 0.1 * load.total_tokens for load in staying)
    if tight:
        return
    board = Board(staying)
    before = board.makespan_ms
    for move in decide(staying, knobs=Knobs()):
        [source, target] = (board.places[id_] for id_ in (move.source, move.target))
        board.move(source.sequences[move.request], source, target, move.reason)
    assert board.makespan_ms <= before + 1e-6


@settings(max_examples=60, deadline=None, derandomize=True)
@given(loads=fleets, gaps=st.lists(st.floats(0.5, 20), min_size=1, max_size=8))
def test_nobody_moves_to_and_fro(loads: tuple[WorkerLoad, ...], gaps: list[float]) -> None:
    """However the fleet changes between rounds: here every move is undone."""
    mover, now = Mover(GREEDY), 0.0
    moved: defaultdict[RequestId, list[float]] = defaultdict(list)
    for gap in [0.0, *gaps]:
        now += gap
        for move in mover.plan(loads, now):
            if move.reason is not Reason.DRAIN:
                moved[move.request].append(now)
    for times in moved.values():
        assert all(b - a >= 30 for a, b in pairwise(times))


def test_a_greedy_round_takes_as_long_as_there_are_requests() -> None:
    """D11, counted: calls of functions for fleets of once, twice, four times the requests."""
    counts = [_calls_of_a_round(per_worker) for per_worker in (20, 40, 80)]
    assert counts[1] <= 2.5 * counts[0]
    assert counts[2] <= 2.5 * counts[1]
    assert counts[2] / (8 * 80) <= 50


def _calls_of_a_round(per_worker: int) -> int:
    loads = [
        a_worker(f"w{number}", several(f"{number}-", per_worker * (number < 4) + 1, waits=True),
                 most_sequences=8, most_waiting=1000, total_tokens=10**6)
        for number in range(8)
    ]  # fmt: skip
    count = 0

    def called(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(called)
    try:
        moves = reference(loads, (), Owed(), GREEDY.most_moves).moves
    finally:
        sys.setprofile(None)
    assert moves
    return count


def test_debts_change_who_moves_and_not_how_many() -> None:
    loads = [
        a_worker("busy", [*several("r", 4), *several("w", 9, waits=True)]),
        a_worker("idle"),
    ]
    debts = Debts({RequestId("w8"): 5.0})
    plain, owed = decide(loads), decide(loads, debts=debts)
    assert len(plain) == len(owed)
    assert "w8" in [move.request for move in owed]
    assert "w8" not in [move.request for move in plain]
