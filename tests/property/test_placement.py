"""Placement, whatever the fleet is like: the index finds what a look at everyone finds, and homes
move only when they must."""

import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.reports import StepTimes
from services.core.types import Digest, WorkerId
from services.policies.placement.cost import place, total_ms
from services.policies.placement.homes import _PRIME, Homes, _products, homes
from services.policies.placement.index import NEAR, Index
from services.policies.placement.ranking import Ranking
from services.policies.placement.views import Wish, WorkerView
from tests.worker_views import BASE, a_view, a_wish

ADAPTERS = [Digest(letter) for letter in "abcd"]
some_adapters = st.frozensets(st.sampled_from(ADAPTERS))
changes = st.lists(
    st.tuples(
        st.integers(0, NEAR - 1),
        st.one_of(
            st.none(),  # it goes
            st.fixed_dictionaries(
                {
                    "running": st.integers(0, 8),
                    "waiting": st.integers(0, 2),
                    "free_tokens": st.sampled_from([None, 100, 1000]),
                    "resident": some_adapters,
                    "host": some_adapters,
                    "loading": st.dictionaries(st.sampled_from(ADAPTERS), st.just(5.0)),
                    "evicts_ms": st.sampled_from([0.0, 50.0]),
                    "draining": st.booleans(),
                    "step_times": st.sampled_from(
                        [StepTimes(30.0, 0.2, 0.2), StepTimes(15.0, 0.1, 0.1)]
                    ),
                }
            ),
        ),
    ),
    max_size=30,
)
wishes = st.builds(
    a_wish,
    st.sampled_from([None, *ADAPTERS]),
    rank=st.sampled_from([8, 64]),
    needs_room=st.booleans(),
    prompt_tokens=st.sampled_from([10, 500]),
    excluded=st.frozensets(st.sampled_from([WorkerId("w00"), WorkerId("w01")])),
)


@settings(max_examples=200, deadline=None)
@given(changes, st.lists(wishes, min_size=1, max_size=4), st.integers(1, 3))
def test_the_index_chooses_what_a_look_at_everyone_does(
    changed: list[tuple[int, dict[str, Any] | None]], asked: list[Wish], count: int
) -> None:
    index = Index(lambda _: count)
    fleet: dict[str, WorkerView] = {}
    for number, facts in changed:
        name = f"w{number:02}"
        if facts is None:
            fleet.pop(name, None)
            index.remove(WorkerId(name))
        else:
            fleet[name] = a_view(name, **facts)
            index.update(fleet[name])
    for wish in asked:
        at_home = wish
        if wish.adapter is not None:
            able = {view.id: 8.0 for view in fleet.values() if not view.draining}
            at_home = replace(wish, homes=frozenset(homes(wish.adapter, able, count)))
        assert index.place(wish) == place(at_home, fleet.values())
    for adapter in ADAPTERS:
        holders = {view.id for view in fleet.values() if view.place_of(adapter)}
        assert index.holders(BASE, adapter) == holders


def test_in_a_big_fleet_the_index_is_hardly_ever_far_off() -> None:
    draw = random.Random(3)
    adapters = [Digest(str(number)) for number in range(300)]
    fleet = [
        a_view(
            f"w{number:03}",
            running=min(8, int(draw.expovariate(0.25))),
            resident=frozenset(draw.sample(adapters, 20)),
            evicts_ms=draw.choice([0.0, 60.0]),
        )
        for number in range(300)
    ]
    index = Index()
    for view in fleet:
        index.update(view)
    by_id = {view.id: view for view in fleet}
    off = []
    for adapter in adapters:
        at_home = frozenset(index.homes(BASE, adapter))
        wish = a_wish(adapter, rank=16, prompt_tokens=draw.choice([20, 2000]), homes=at_home)
        chosen, best = index.place(wish), place(wish, fleet)
        assert chosen is not None
        assert best is not None
        off.append(total_ms(by_id[chosen], wish) / total_ms(by_id[best], wish) - 1)
    assert max(off) < 0.02
    assert sum(map(bool, off)) < len(off) / 20


@settings(max_examples=100, deadline=None)
@given(st.permutations([a_view(f"w{n}", running=n // 3, free_pages=n % 2) for n in range(9)]))
def test_the_order_of_the_fleet_does_not_matter(fleet: list[WorkerView]) -> None:
    index = Index()
    for view in fleet:
        index.update(view)
    assert place(a_wish(), fleet) == index.place(a_wish()) == "w1"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 3))))
def test_a_ranking_is_a_sorted_list(changed: list[tuple[str, int | None]]) -> None:
    ranking, plain = Ranking(), dict[WorkerId, float]()
    for name, key in changed:
        if key is None:
            ranking.drop(WorkerId(name))
            plain.pop(WorkerId(name), None)
        else:
            ranking.put(WorkerId(name), key)
            plain[WorkerId(name)] = key
        in_order = sorted(plain, key=lambda worker: (plain[worker], worker))
        assert list(ranking) == in_order
        assert ranking.up_to(1, 3) == [worker for worker in in_order if plain[worker] <= 1][:3]


NAMES = [Digest(f"{number:064x}") for number in range(400)]
capacities = st.dictionaries(
    st.integers(0, 60).map(lambda number: WorkerId(f"w{number}")),
    st.sampled_from([1.0, 2.0, 7.5]),
    min_size=2,
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(capacities, st.integers(1, 4), st.data())
def test_who_goes_takes_only_its_own_homes_along(
    workers: dict[WorkerId, float], count: int, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(workers)))
    left = {worker: capacity for worker, capacity in workers.items() if worker != gone}
    for adapter in NAMES[:40]:
        before, after = homes(adapter, workers, count), homes(adapter, left, count)
        kept = [worker for worker in before if worker != gone]
        assert list(after[: len(kept)]) == kept  # and seen the other way: who comes


def test_homes_are_as_many_as_capacities_say() -> None:
    workers = {WorkerId("big"): 3.0, WorkerId("small"): 1.0, WorkerId("tiny"): 1.0}
    known = Homes()
    for worker, capacity in workers.items():
        known.join(worker, capacity)
    found = Counter(known.of(Digest(f"{n:064x}"))[0] for n in range(5000))
    assert found[WorkerId("big")] == pytest.approx(3000, rel=0.05)
    assert found[WorkerId("tiny")] == pytest.approx(1000, rel=0.1)


def test_first_and_second_homes_are_independent() -> None:
    workers = [WorkerId(f"w{number}") for number in range(8)]
    known = Homes()
    for worker in workers:
        known.join(worker, 1.0)
    found = Counter(known.of(Digest(f"{n:064x}"), 2) for n in range(5600))
    pairs = list(permutations(workers, 2))
    chi_square = sum((found[pair] - 100) ** 2 / 100 for pair in pairs)
    assert chi_square < 55 + 4 * (2 * 55) ** 0.5  # four deviations above its mean


def test_a_home_is_remembered_until_the_fleet_is_another() -> None:
    known = Homes()
    known.join(WorkerId("w1"), 1.0)
    assert all(known.of(adapter) == ("w1",) for adapter in NAMES)
    known.join(WorkerId("w2"), 1.0)
    assert {known.of(adapter)[0] for adapter in NAMES} == {"w1", "w2"}
    assert all(set(known.of(adapter, 5)) == {"w1", "w2"} for adapter in NAMES[:2])
    known.leave(WorkerId("w1"))
    assert {known.of(adapter) for adapter in NAMES} == {("w2",)}
    with pytest.raises(ValueError, match="capacity"):
        known.join(WorkerId("w3"), 0.0)


@given(
    st.integers(0, _PRIME - 1),
    st.lists(st.integers(0, _PRIME - 1) | st.sampled_from([_PRIME - 1, 1 << 60]), min_size=1),
)
def test_products_in_64_bits_are_those_of_integers(seed: int, others: list[int]) -> None:
    found = _products(seed, np.array(others, dtype=np.uint64))
    assert found.tolist() == [seed * other % _PRIME for other in others]


def test_every_process_finds_the_same_homes() -> None:
    asks = (
        "from services.policies.placement.homes import homes\n"
        "print(homes('a', {f'w{n}': 1.0 + n % 2 for n in range(50)}, 3))"
    )
    here = homes(Digest("a"), {WorkerId(f"w{n}"): 1.0 + n % 2 for n in range(50)}, 3)
    there = subprocess.run(
        [sys.executable, "-c", asks],
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == str(here)
