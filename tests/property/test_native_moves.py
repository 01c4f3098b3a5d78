"""Greedy rounds in C are those in Python, move for move and to the last bit."""

import os
import random
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.reports import SequenceLoad
from services.core.types import RequestId
from services.policies.migration import greedy_round
from services.policies.migration.loads import PlannedMove, Reason, WorkerLoad
from services.policies.migration.rounds import Knobs, decide
from tests.fleets import a_worker, several
from tests.rounds import Round, any_round

ROUNDS = 400 * int(os.environ.get("LORIKEET_SEEDS", "1"))
KINDS = [(Reason.MEMORY, False), *product((Reason.DRAIN, Reason.BALANCE), (False, True))]


def test_moves_are_the_references() -> None:
    seen: Counter[tuple[Reason, bool]] = Counter()
    for seed in range(ROUNDS):
        asked = any_round(random.Random(seed))
        expected = asked.in_python()
        assert asked.in_c() == expected, seed
        seen.update(_kinds(asked.loads, expected.moves))
    assert min(seen[kind] for kind in KINDS) >= 50, "too few of a kind to tell"


def _kinds(loads: Sequence[WorkerLoad], moves: Sequence[PlannedMove]) -> list[tuple[Reason, bool]]:
    """Why each moves, and whether it waits."""
    waits = {each.request: each.waiting for load in loads for each in load.sequences}
    return [(move.reason, waits[move.request]) for move in moves]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2**30), st.booleans()), max_size=12
    ),
    most=st.integers(0, 12),
)
def test_of_lengths_of_every_size_too(lengths: list[tuple[int, int, bool]], most: int) -> None:
    """On three workers, of which the first has it all."""
    there = [
        SequenceLoad(RequestId(str(n)), None, tokens, left, waits)
        for n, (tokens, left, waits) in enumerate(lengths)
    ]
    room: dict[str, Any] = {"total_tokens": 2**30, "free_tokens": 2**30, "most_waiting": 4}
    asked = Round([a_worker("a", there, **room), a_worker("b", **room), a_worker("c", **room)],
                  most_moves=most)  # fmt: skip
    assert asked.in_c() == asked.in_python()


def test_of_a_large_fleet_too() -> None:
    """Whose workers are found by how busy they are."""
    busy = [a_worker(f"b{n}", several(f"{n}-", 4 + n % 50, "abcde"[n % 5], waits=n % 3 > 0,
                                      left=50 + n % 17)) for n in range(150)]  # fmt: skip
    others = [a_worker(f"o{n}", several(f"o{n}-", n % 6, "b", left=20 + n % 13),
                       "abc"[: n % 4], most_waiting=n % 3) for n in range(150)]  # fmt: skip
    asked = Round([*busy, *others], most_moves=1000)
    expected = asked.in_python()
    assert len(expected.moves) > 200
    assert asked.in_c() == expected


def test_the_program_finds_the_same_after_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """What must go goes first, and crowds are left last, wherever it is asked."""
    knobs = Knobs(uneven=0.0, most_moves=8)
    rounds = [any_round(random.Random(seed)) for seed in range(15)]
    in_c = [decide(each.loads, frozen=each.frozen, knobs=knobs) for each in rounds]
    monkeypatch.setattr(greedy_round, "module", lambda: None)
    in_python = [decide(each.loads, frozen=each.frozen, knobs=knobs) for each in rounds]
    assert in_c == in_python
    assert sum(map(len, in_c)) > 20
