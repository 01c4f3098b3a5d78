"""A small fleet under the placement in production and under baselines."""

import random
import statistics
from functools import cache

import pytest

from services.core.types import WorkerId
from services.policies.placement.baselines import BASELINES
from services.policies.placement.forecast import Season
from services.policies.placement.replicas import Rules
from services.simulator.placement.foresight import errors
from services.simulator.placement.hardware import FAST, SLOW, catalogue, mixed
from services.simulator.placement.steering import MinCost, Unsteered
from services.simulator.placement.traces import (
    TRACES,
    Asked,
    Shape,
    Trace,
    diurnal,
    flash_crowd,
    worker_loss,
    zipf,
)
from services.simulator.placement.worker import Job, LeanWorker
from services.simulator.placement.world import Measured, World

WORKERS = 20
SHAPE = Shape(adapters=500, tenants=50, per_second=14.0, seconds=120.0)
ADAPTERS = catalogue(SHAPE.adapters)
RULES = Rules(fast_seconds=10.0, slow_seconds=30.0, least_seconds=10.0)


def ours() -> MinCost:
    return MinCost(RULES, Season(3.0, 10), 6500.0 / SLOW.slots, foresees=True)


def a_world(trace: Trace, name: str = "") -> World:
    steering = Unsteered(BASELINES[name](random.Random(5).random)) if name else ours()
    return World(trace, [SLOW] * WORKERS, ADAPTERS, steering)


@cache
def measured(name: str = "") -> Measured:
    return a_world(zipf(random.Random(1), SHAPE), name).run()


def test_affinity_saves_loads_against_random() -> None:
    assert measured().loads < 0.6 * measured("random").loads
    assert _first_token(measured()) < 0.8 * _first_token(measured("random"))


def test_affinity_that_yields_is_even() -> None:
    affinity_only = measured("affinity-only")
    assert statistics.fmean(measured().uneven) < 0.5 * statistics.fmean(affinity_only.uneven)
    assert _first_token(measured()) < 0.5 * _first_token(affinity_only)


def test_it_is_as_quick_as_the_least_loaded() -> None:
    whole = (statistics.fmean(each.lives) for each in (measured(), measured("least-loaded")))
    assert next(whole) < next(whole)


def test_the_quick_do_more() -> None:
    world = World(zipf(random.Random(1), SHAPE), mixed(WORKERS), ADAPTERS, ours())
    done: dict[bool, int] = {True: 0, False: 0}
    place = world._steering.place  # whom it names

    def counted(wish):  # type: ignore[no-untyped-def]
        chosen = place(wish)
        if chosen is not None:
            done[world.workers[chosen].hardware is FAST] += 1
        return chosen

    world._steering.place = counted  # type: ignore[method-assign]
    world.run()
    assert done[True] > done[False]  # a quarter of the workers


def test_the_loss_of_a_worker_moves_only_what_was_there() -> None:
    trace = worker_loss(random.Random(1), SHAPE)
    world = a_world(trace)
    seen: list[dict[int, WorkerId]] = []
    lose = world.lose

    def looked(workers, now):  # type: ignore[no-untyped-def]
        gone = list(workers)
        seen.append(dict(world.placed))
        lose(gone, now)
        seen.append(dict(world.placed))
        assert gone == ["w0000"]

    world.lose = looked  # type: ignore[method-assign]
    found = world.run()
    before, after = seen
    moved = {number for number, worker in before.items() if after[number] != worker}
    assert moved == {number for number, worker in before.items() if worker == "w0000"}
    assert found.moved == len(moved) > 0
    assert "w0000" not in after.values()


def test_a_flash_crowd_gets_homes_and_loses_them() -> None:
    trace = flash_crowd(random.Random(1), SHAPE)
    crowd = ADAPTERS[SHAPE.adapters // 2].digest
    steering, counts = ours(), []
    World(
        trace, [SLOW] * WORKERS, ADAPTERS, steering,
        each_second=lambda _, now: counts.append(steering.replicas.count(crowd)),
    ).run()  # fmt: skip
    third = int(SHAPE.seconds / 3)
    assert counts[third - 2] == 1
    assert counts[third + 20] >= 3
    assert max(counts) >= 4
    assert counts[-1] < max(counts)
    for second in range(100):
        steering.replicas.settle(SHAPE.seconds + 10 * second)
    assert steering.replicas.count(crowd) == 1


@pytest.mark.parametrize("name", TRACES)
def test_every_request_of_a_trace_is_in_order_and_known(name: str) -> None:
    trace = TRACES[name](random.Random(2), SHAPE)
    times = [asked.at for asked in trace.requests]
    assert times == sorted(times)
    assert times[-1] < SHAPE.seconds
    assert all(0 <= asked.adapter < SHAPE.adapters for asked in trace.requests)
    assert len(times) == pytest.approx(SHAPE.per_second * SHAPE.seconds, rel=0.15)


def test_what_comes_every_day_is_foretold_better_than_by_the_average() -> None:
    shape = Shape(adapters=200, tenants=10, per_second=60.0, seconds=640.0)
    days = errors(diurnal(random.Random(1), shape, days=8), Season(5.0, 16))
    assert days["chosen"] < 0.95 * days["ema"]
    steady = errors(zipf(random.Random(1), shape), Season(5.0, 16))
    assert steady["chosen"] < 1.02 * steady["ema"]


def test_a_request_alone_takes_its_load_its_prompt_and_its_steps() -> None:
    adapter = ADAPTERS[0]  # of rank 8: 40 MiB
    worker = LeanWorker("w", SLOW)
    worker.give(Job(0, 0.0, 0, adapter, 100, 50), 0.0)
    (job,) = _run(worker)
    load = 0.030 + 40 / 500 + 40 / 16_000
    first = load + 0.030 + 100 * 0.000214
    assert job.first_token == pytest.approx(first)
    assert worker.fetches == worker.loads == 1


def test_what_was_preloaded_need_only_be_copied() -> None:
    worker = LeanWorker("w", SLOW)
    worker.preload(ADAPTERS[0], 0.0)
    assert _run(worker) == []
    worker.give(Job(0, 5.0, 0, ADAPTERS[0], 100, 50), 5.0)
    (job,) = _run(worker)
    assert job.first_token - 5.0 == pytest.approx(40 / 16_000 + 0.030 + 100 * 0.000214)
    assert (worker.fetches, worker.loads) == (1, 1)


def test_who_was_used_longest_ago_is_evicted_and_nobody_who_is_used() -> None:
    worker = LeanWorker("w", SLOW)
    for number in range(100):
        worker.give(Job(number, 0.0, 0, ADAPTERS[number], 1, 1), float(number))
        list(_run(worker))
    resident = worker.view(100.0).resident
    assert ADAPTERS[99].digest in resident
    assert ADAPTERS[0].digest not in resident
    assert sum(each.mib for each in ADAPTERS if each.digest in resident) <= SLOW.device_mib


def test_more_than_the_slots_wait() -> None:
    worker = LeanWorker("w", SLOW)
    for number in range(SLOW.slots + 2):
        worker.give(Job(number, 0.0, 0, ADAPTERS[0], 1, 10), 0.0)
    assert (worker.view(0.0).running, worker.view(0.0).waiting) == (SLOW.slots, 2)
    assert len(list(_run(worker))) == SLOW.slots + 2


def test_all_that_came_ends_or_is_there() -> None:
    requests = tuple(Asked(0.1 * n, 0, n % 7, 10, 20) for n in range(300))
    world = a_world(Trace("even", SHAPE, requests, {10.0: 0.5}))
    world.run()
    held = sum(worker.held for worker in world.workers.values())
    assert len(world.measured.lives) + held + len(world._queue) == 300
    assert set(world.placed.values()) <= world.workers.keys()


def _run(worker: LeanWorker) -> list[Job]:
    ended: list[Job] = []
    now = 0.0
    while (due := worker.next_event(now)) < float("inf"):
        now = due
        ended += worker.go_on(now)
    return ended


def _first_token(found: Measured) -> float:
    return statistics.fmean(found.waits)
