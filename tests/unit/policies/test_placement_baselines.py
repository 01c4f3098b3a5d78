"""Baselines do what their names say."""

from itertools import cycle

import pytest

from services.core.types import Digest, WorkerId
from services.policies.placement.baselines import BASELINES, Placement
from tests.worker_views import ADAPTER, a_view, a_wish


def a_placement(name: str, *draws: float) -> Placement:
    placement = BASELINES[name](cycle(draws or (0.0,)).__next__)
    for number, running in enumerate((5, 2, 8)):
        placement.update(a_view(f"w{number}", running=running))
    return placement


@pytest.mark.parametrize("name", BASELINES)
def test_nobody_is_chosen_of_none(name: str) -> None:
    placement = a_placement(name)
    for worker in ("w0", "w1", "w2", "w1"):
        placement.remove(WorkerId(worker))
    assert placement.place(a_wish()) is None


def test_any() -> None:
    placement = a_placement("random", 0.0, 0.5, 0.99, 0.4)
    assert [placement.place(a_wish()) for _ in range(4)] == ["w0", "w1", "w2", "w1"]


def test_any_that_has_room() -> None:
    placement = a_placement("random", 0.99)
    assert placement.place(a_wish(needs_room=True)) == "w1"


def test_in_turn() -> None:
    placement = a_placement("round-robin")
    assert [placement.place(a_wish()) for _ in range(4)] == ["w0", "w1", "w2", "w0"]
    assert placement.place(a_wish(needs_room=True)) == "w1"
    assert placement.place(a_wish(needs_room=True)) == "w0"  # w2 has none


def test_the_least_loaded() -> None:
    placement = a_placement("least-loaded")
    assert placement.place(a_wish()) == "w1"
    placement.update(a_view("w1", running=2, waiting=4))
    assert placement.place(a_wish()) == "w0"


def test_always_the_same() -> None:
    placement = a_placement("static")
    chosen = {n: placement.place(a_wish(Digest(str(n)), needs_room=True)) for n in range(40)}
    assert set(chosen.values()) == {"w0", "w1", "w2"}
    placement.remove(WorkerId("w1"))
    moved = {n: placement.place(a_wish(Digest(str(n)))) for n in range(40)}
    assert {chosen[n] for n in chosen if moved[n] != chosen[n]} == {"w1"}


def test_who_has_it_however_busy() -> None:
    placement = a_placement("affinity-only")
    assert placement.place(a_wish()) == "w1"
    placement.update(a_view("w2", running=8, waiting=9, resident=frozenset({ADAPTER})))
    assert placement.place(a_wish(needs_room=True)) == "w2"
    placement.update(a_view("w2"))
    placement.update(a_view("w0", running=5, loading={ADAPTER: 3.0}))
    assert placement.place(a_wish()) == "w0"
