"""What a request costs where, and so where it goes."""

from dataclasses import replace
from typing import Any

import pytest

from services.core.reports import AdapterPlace, StepTimes
from services.core.types import Digest, Fingerprint, WorkerId
from services.policies.placement.cost import Cost, explain, load_ms, place, urgency
from tests.worker_views import ADAPTER, TIMES, a_view, a_wish

OTHER = Digest("b" * 64)
HERE: dict[str, Any] = {"resident": frozenset({ADAPTER})}


@pytest.mark.parametrize(
    ("there", "milliseconds"),
    [
        (HERE, 0.0),
        ({"loading": {ADAPTER: 3.5}}, 3.5),
        ({"host": frozenset({ADAPTER})}, 10.0),
        ({}, 200.0),
    ],
)
def test_a_load_takes_what_is_left_of_it(there: dict[str, Any], milliseconds: float) -> None:
    assert load_ms(a_view(**there), a_wish(fetch_ms=200.0, copy_ms=10.0)) == milliseconds


def test_the_base_model_is_everywhere() -> None:
    assert load_ms(a_view(), a_wish(None)) == 0.0


def test_places_are_preferred_in_the_order_of_their_times() -> None:
    fleet = [
        a_view("w1"),
        a_view("w2", host=frozenset({ADAPTER})),
        a_view("w3", loading={ADAPTER: 4.0}),
        a_view("w4", **HERE),
    ]
    costs = explain(a_wish(), fleet)
    assert [cost.worker for cost in costs] == ["w4", "w3", "w2", "w1"]
    assert [cost.place for cost in costs] == [
        AdapterPlace.DEVICE, AdapterPlace.LOADING, AdapterPlace.HOST, None,
    ]  # fmt: skip


def test_affinity_outweighs_a_little_load() -> None:
    assert place(a_wish(), [a_view("w1"), a_view("w2", running=2, **HERE)]) == "w2"


def test_affinity_yields_to_a_queue() -> None:
    fleet = [a_view("w1"), a_view("w2", running=2, waiting=2, **HERE)]
    assert place(a_wish(), fleet) == "w1"


def test_an_adapter_that_loads_while_others_wait_costs_no_wait_of_its_own() -> None:
    busy = a_view(queued_tokens=2000)  # 400 ms of prompts
    there, absent = (_only(replace(busy, **facts)) for facts in (HERE, {}))
    assert there.load_ms + there.queue_ms == absent.load_ms + absent.queue_ms


def test_at_home_nobody_is_displaced() -> None:
    fleet = [a_view("w1", evicts_ms=50.0), a_view("w2", evicts_ms=50.0)]
    assert place(a_wish(), fleet) == "w1"
    assert place(a_wish(homes=frozenset({WorkerId("w2")})), fleet) == "w2"


def test_a_free_place_is_better_than_one_that_displaces() -> None:
    assert place(a_wish(), [a_view("w1", evicts_ms=50.0), a_view("w2")]) == "w2"


def test_a_high_rank_goes_where_ranks_are_high() -> None:
    fleet = [
        a_view("w1", running=3, ranks={OTHER: 8}),
        a_view("w2", running=3, ranks={OTHER: 64}),
    ]
    assert place(a_wish(rank=64), fleet) == "w2"
    assert place(a_wish(rank=8), fleet) == "w1"


def test_one_more_distinct_adapter_makes_steps_longer() -> None:
    fleet = [
        a_view("w1", running=3, ranks={OTHER: 16}, **HERE),
        a_view("w2", running=3, ranks={ADAPTER: 16}, **HERE),
    ]
    assert place(a_wish(rank=16), fleet) == "w2"


def test_the_quicker_hardware_has_what_neither_has() -> None:
    quick = StepTimes(base=15.0, sequence=0.1, token=0.1)
    assert place(a_wish(), [a_view("w1"), a_view("w2", step_times=quick)]) == "w2"


def test_the_last_place_is_kept_for_who_has_its_adapter_there() -> None:
    fleet = [a_view("w1", running=7), a_view("w2", running=7, most_sequences=16)]
    assert place(a_wish(), fleet) == "w2"


def test_who_is_owed_more_gets_what_is_worse_for_others() -> None:
    fleet = [
        a_view("w1", running=5, step_times=replace(TIMES, base=29.0)),
        a_view("w2", running=3),
    ]
    assert place(a_wish(None), fleet) == "w2"
    assert place(a_wish(None, urgency=4.0), fleet) == "w1"


def test_urgency_grows_with_what_is_owed() -> None:
    assert [urgency(owed, 100.0) for owed in (-50, 0, 50, 100, 1e9)] == [1.0, 1.0, 2.5, 4.0, 4.0]
    with pytest.raises(ValueError, match="bound"):
        urgency(1.0, 0.0)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"draining": True}, "takes nothing new"),
        ({"base_model": "other"}, "serves other"),
        ({"base_fingerprint": Fingerprint("0" * 64)}, "serves another version"),
        ({"running": 8}, "has no room"),
        ({"running": 1, "free_tokens": 300}, "has no room"),
    ],
)
def test_who_cannot_run_it_says_why(facts: dict[str, Any], why: str) -> None:
    view = a_view(**facts)
    wish = a_wish(needs_room=True, prompt_tokens=200, output_tokens=101)
    assert place(wish, [view]) is None
    assert why in _only(view, needs_room=True, prompt_tokens=200, output_tokens=101).excluded


def test_who_has_failed_it_is_not_asked_again() -> None:
    wish = a_wish(excluded=frozenset({WorkerId("w1")}))
    assert place(wish, [a_view("w1")]) is None
    assert place(wish, [a_view("w1"), a_view("w2", running=5)]) == "w2"


def test_what_fits_nowhere_fits_an_idle_worker() -> None:
    assert place(a_wish(needs_room=True, prompt_tokens=9000), [a_view(free_tokens=100)]) == "w1"


def test_the_explanation_agrees_with_the_choice() -> None:
    fleet = [
        a_view("w1", running=2),
        a_view("w2", running=4, **HERE),
        a_view("w3", draining=True, **HERE),
    ]
    costs = explain(a_wish(homes=frozenset({WorkerId("w1")})), fleet)
    assert costs[0].worker == place(a_wish(homes=frozenset({WorkerId("w1")})), fleet)
    assert [cost.worker for cost in costs if cost.excluded] == ["w3"]
    assert costs[-1].worker == "w3"
    assert [cost.worker for cost in costs if cost.home] == ["w1"]
    assert min(cost.slowdown_ms for cost in costs) < 200  # not what any token takes anywhere


def test_nobody_is_best_of_none() -> None:
    assert place(a_wish(), []) is None
    assert explain(a_wish(), []) == []


def _only(view: Any, **facts: Any) -> Cost:
    (cost,) = explain(a_wish(**facts), [view])
    return cost
