"""Greedy moves in C: what is left to Python, what is an error, and that nothing is kept."""

import logging
import math
import random
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest

from services.core.reports import SequenceLoad, SequenceSum, SequenceSums, StepTimes
from services.core.types import RequestId
from services.policies.migration import greedy_round
from services.policies.migration.greedy import Owed
from services.policies.migration.loads import Debts, PlannedMove, Reason, WorkerLoad
from services.policies.migration.native.module import module
from services.policies.migration.rounds import decide
from tests.fleets import a_sequence, a_worker, several
from tests.rounds import Round, any_round


class Unequal(str):
    """Cannot be compared, and has one hash with others."""

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError


def busy(**differing: Any) -> list[WorkerLoad]:
    """From the first of which what waits goes to the second."""
    there = [*several("r", 4), *several("w", 3, waits=True)]
    return [a_worker("busy", there, **differing), a_worker("idle")]


def changed(load: WorkerLoad, **fields: Any) -> WorkerLoad:
    return replace(load, **fields)


def test_there_is_a_compiler_here() -> None:
    assert module() is not None


@pytest.mark.parametrize(
    "variables", [{"PATH": "", "CC": ""}, {"CC": "false"}, {"CC": "/nowhere/cc"}]
)
def test_without_a_compiler_moves_are_planned_in_python(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = decide(busy())
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING):
        assert module.__wrapped__() is None
    assert "greedy moves are not planned in C" in caplog.text
    monkeypatch.setattr(greedy_round, "module", lambda: None)
    assert decide(busy()) == expected


@pytest.mark.parametrize(
    "loads",
    [
        [*busy(), a_worker("idle")],
        [*busy(), a_worker("more", [a_sequence("r0")])],
        busy(takes=True, draining=True),
        busy(load_ms=math.inf),
        busy(load_ms=math.nan),
        busy(load_ms=-1.0),
        busy(move_ms=-1.0),
        busy(step_times=StepTimes(20.0, -0.1, 0.1)),
        busy(most_waiting=2**30 + 1),
        busy(most_waiting=2**70),
        busy(free_tokens=-1),
        busy(most_adapters=-1),
        busy(most_sequences=4.0),
        busy(in_use=("a",)),
        busy(others=SequenceSums(SequenceSum(-1), SequenceSum())),
        [a_worker("tokens", [SequenceLoad(RequestId("r"), None, -5, 5)])],
    ],
    ids=lambda loads: str(loads[0].id),
)
def test_what_is_odd_is_left_to_python(loads: list[WorkerLoad]) -> None:
    asked = Round(loads)
    assert asked.in_c() is None
    assert repr(greedy_round.play(loads, (), Owed(), 64)) == repr(asked.in_python())


@pytest.mark.parametrize("owed", [Owed(Debts({RequestId("w0"): math.inf})),
                                  Owed(Debts({RequestId("w0"): 1.0}), math.inf)])  # fmt: skip
def test_debts_without_bounds_are_left_to_python(owed: Owed) -> None:
    assert Round(busy(), owed=owed).in_c() is None


BAD: list[tuple[Callable[[], Any], type[Exception]]] = [
    (lambda: [object()], AttributeError),
    (lambda: 5, TypeError),
    (lambda: [changed(each, step_times=None) for each in busy()], AttributeError),
    (lambda: [changed(each, sequences=5) for each in busy()], TypeError),
    (lambda: [changed(each, sequences=(5,)) for each in busy()], AttributeError),
    (lambda: [changed(each, others=None) for each in busy()], AttributeError),
    (lambda: [changed(each, load_ms="long") for each in busy()], TypeError),
    (lambda: [a_worker("w", [a_sequence("r", cast(str, []))])], TypeError),
    (lambda: [a_worker("w", [a_sequence(Unequal(n)) for n in "ab"])], ZeroDivisionError),
    (
        lambda: [
            a_worker("busy", several("r", 8, Unequal("x")), most_sequences=2),
            a_worker("other", resident="", in_use=frozenset({Unequal("y")})),
        ],
        ZeroDivisionError,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error"), BAD)
def test_what_cannot_be_read_is_an_error(make: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Round(make()).in_c()


def test_arguments_are_checked() -> None:
    native = cast(Any, module())
    with pytest.raises(TypeError):
        native.play([], set(), {}, 1e-4, 64)
    with pytest.raises(TypeError):
        native.play([], frozenset(), {}, 1e-4, 6.5)
    with pytest.raises(TypeError, match="real number"):
        Round(busy(), owed=Owed(Debts(cast(Any, {"w0": "much"})))).in_c()
    assert native.play([], frozenset(), {}, 1e-4, 64) == ([], 0.0, 0.0)


def whole() -> list[WorkerLoad]:
    return [a_worker("busy", several("r", 30, waits=True), most_sequences=2), a_worker("idle")]


@pytest.mark.parametrize("make", [whole, lambda: busy(load_ms=-1.0), *(each for each, _ in BAD)])
def test_nothing_is_kept(make: Callable[[], Any]) -> None:
    asked = Round(make())

    def often() -> int:
        for _ in range(100):
            with suppress(AttributeError, TypeError, ZeroDivisionError):
                asked.in_c()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        often()
        counts = references(asked)
        before = often()
        assert often() - before < 1000  # bytes: ten for each
        assert all(now < was + 50 for was, now in zip(counts, references(asked), strict=True))
    finally:
        tracemalloc.stop()


def references(asked: Round) -> list[int]:
    """To all that is read."""
    loads = asked.loads if isinstance(asked.loads, list) else []
    held: list[Any] = [asked.frozen, Reason.BALANCE, PlannedMove, *loads]
    for load in loads:
        of_load = values(load)
        there = of_load[2] if len(of_load) > 2 and isinstance(of_load[2], tuple) else ()
        held += [*of_load, *there, *(value for each in there for value in values(each))]
        held += [value for each in of_load for value in values(each)]
    return [sys.getrefcount(each) for each in held]


def values(of: object) -> list[Any]:
    """But None and whole numbers, which everybody refers to."""
    found = [getattr(of, name, 0) for name in getattr(of, "__slots__", ())]
    return [each for each in found if each is not None and not isinstance(each, int)]


def test_moves_hold_what_they_name() -> None:
    """After the fleet is gone."""
    rounds = [any_round(random.Random(seed)) for seed in range(30)]
    expected = [repr(each.in_python()) for each in rounds]
    found = [each.in_c() for each in rounds]
    del rounds
    assert [*map(repr, found)] == expected
