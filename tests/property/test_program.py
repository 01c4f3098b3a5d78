"""The program of co-migration against all that is possible, where there is little of it."""

import math
import os
import random
from itertools import product

import pytest

from services.core.reports import SequenceLoad, StepTimes
from services.core.types import Digest, RequestId, WorkerId
from services.policies.migration.board import Board
from services.policies.migration.greedy import Owed
from services.policies.migration.loads import PlannedMove, Reason, WorkerLoad
from services.policies.migration.model import CAUTION, LEAST_PRICE, Effort
from services.policies.migration.program import Limit, solve
from tests.fleets import a_worker, assert_room

INSTANCES = 75 * int(os.environ.get("LORIKEET_SEEDS", "1"))


def small_instance(draw: random.Random) -> list[WorkerLoad]:
    """Two workers that take, and up to eight requests; memory is short where requests come to."""
    counts = [draw.randint(0, 6), draw.randint(0, 2)]
    loads = []
    for number, count in enumerate(counts):
        there = tuple(
            SequenceLoad(
                RequestId(f"{number}{n}"), draw.choice([None, *map(Digest, "abc")]),
                draw.randint(10, 800), draw.randint(10, 800), draw.random() < 0.6,
            )
            for n in range(count)
        )  # fmt: skip
        loads.append(
            a_worker(
                str(number), there, draw.choice(["", "a", "ab", "abc"]),
                most_sequences=draw.randint(1, 4), total_tokens=1_000_000,
                free_tokens=draw.randint(500, 6000), load_ms=draw.choice([5.0, 100.0, 2000.0]),
                step_times=StepTimes(draw.choice([10.0, 20.0, 40.0]), 0.2, 0.1),
                move_ms=draw.choice([None, 0.05]), most_waiting=draw.choice([0, 10]),
                most_adapters=draw.choice([None, 2, 3]),
            )
        )  # fmt: skip
    return loads


@pytest.mark.parametrize(("exact", "worst"), [(200, 1.05), (0, math.inf)])
def test_the_program_is_within_a_twentieth_of_the_best(exact: int, worst: float) -> None:
    """D12, by brute force. Relaxed, as it is where there are many, it is so on average, even of so
    few."""
    draw, ratios = random.Random(0), []
    for _ in range(INSTANCES):
        loads = small_instance(draw)
        solved = solve(Board(loads), Owed(), Limit(64), Effort(seconds=5.0, exact=exact))
        moves = {} if solved is None else {m.request: m.target for m in solved.moves}
        at = {s.request: moves.get(s.request, w.id) for w in loads for s in w.sequences}
        assert allowed(loads, at)
        ratios.append(seconds(loads, at) / best_seconds(loads) if at else 1.0)
    assert max(ratios) <= worst
    assert min(ratios) >= 1 - 1e-9
    assert sum(ratios) / len(ratios) <= 1.05


def best_seconds(loads: list[WorkerLoad]) -> float:
    requests = [each.request for load in loads for each in load.sequences]
    placed = (
        dict(zip(requests, places, strict=True))
        for places in product([load.id for load in loads], repeat=len(requests))
    )
    return min(seconds(loads, at) for at in placed if allowed(loads, at))


def allowed(loads: list[WorkerLoad], at: dict[RequestId, WorkerId]) -> bool:
    """What the program must keep to, said once more: room for what comes, and who has no line, or
    would not have one any more, gives nobody."""
    for load in loads:
        there = {each.request for each in load.sequences}
        gone = sum(at[request] != load.id for request in there)
        if gone and len(there) - gone < load.most_sequences:
            return False
        come = [s for w in loads if w is not load for s in w.sequences if at[s.request] == load.id]
        try:
            assert_room(load, tuple(loads), [_a_move(s, load) for s in come])
        except AssertionError:
            return False
    return True


def _a_move(sequence: SequenceLoad, target: WorkerLoad) -> PlannedMove:
    return PlannedMove(sequence.request, sequence.adapter, WorkerId(""), target.id, Reason.BALANCE)


def seconds(loads: list[WorkerLoad], at: dict[RequestId, WorkerId]) -> float:
    """The program's objective, said once more."""
    work, lost, prices = [], [], 0.0
    for load in loads:
        times, run, move, loaded = load.step_times, 0.0, 0.0, set()
        used = {each.adapter for each in load.sequences}
        for source in loads:
            for each in source.sequences:
                if at[each.request] != load.id:
                    continue
                run += each.tokens_left * (times.base / load.most_sequences + times.sequence)
                run += times.token * each.tokens * each.waiting
                if source is load:
                    continue
                dearest = times.token if load.move_ms is None else min(times.token, load.move_ms)
                cost = 0.0 if each.waiting else dearest * each.tokens
                move += cost
                prices += CAUTION * cost / 1000 / len(loads) + LEAST_PRICE
                loaded |= {each.adapter} - used - load.resident - {None}
        lost.append((move + load.load_ms * len(loaded)) / 1000)
        work.append(run / 1000 + lost[-1])
    return max(work) + sum(lost) / len(loads) + prices
