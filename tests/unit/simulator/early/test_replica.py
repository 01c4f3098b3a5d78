"""The lean replica: as the production engine where nothing is merged, and merging where it pays."""

import math
import random

import pytest

from services.core.types import Digest
from services.policies.fairness.baselines import FirstComeFirstServed
from services.simulator.arrivals import Arrival, arrivals
from services.simulator.early.replica import CopyReplica, Iterations, Replica, Sequence
from services.simulator.early.workload import Bursts, bursts
from services.simulator.replay import replay
from services.simulator.step_time import StepTime

A, B = Digest("a"), Digest("b")
PLAIN = Iterations(merge_at=math.inf)


def ends(replica: Replica, coming: list[Arrival]) -> dict[str, float]:
    found = []
    for arrival in coming:
        found += replica.advance(arrival.at)
        replica.add(Sequence.of(arrival), arrival.at)
    found += replica.advance(math.inf)
    return {str(sequence.id): at for sequence, at in found}


def all_at_once(adapter: Digest, count: int, tokens: int = 100) -> list[Arrival]:
    return arrivals(str(adapter), [0.0] * count, [(1, tokens)] * count, adapter)


@pytest.mark.parametrize("per_second", [1.0, 4.0])
def test_it_is_as_fast_as_the_production_engine(per_second: float) -> None:
    """To an iteration or two: an engine's step that only computes prompts makes no other token."""
    coming = bursts(random.Random(0), Bursts(per_second, seconds=30.0))
    step_time = StepTime(0.0, 0.0001, 27.0, 0.0, 0.0)
    recording = replay(
        coming, FirstComeFirstServed(), kv_tokens=100_000, max_sequences=16, step_time=step_time
    )
    lean = ends(Replica(PLAIN), coming)
    assert len(recording.requests) == len(lean)
    for record in recording.requests:
        assert record.ended is not None
        assert lean[str(record.id)] == pytest.approx(record.ended, rel=0.01, abs=0.1)


def test_one_adapter_alone_is_merged() -> None:
    merged = ends(Replica(Iterations(token=0.0)), all_at_once(A, 16))
    assert list(merged.values()) == pytest.approx([0.02 + 100 * 0.015] * 16)


def test_half_and_half_is_not_merged() -> None:
    mixed = ends(Replica(Iterations(token=0.0)), all_at_once(A, 8) + all_at_once(B, 8))
    assert list(mixed.values()) == pytest.approx([100 * 0.027] * 16)


def test_who_is_merged_stays_so_while_it_has_enough() -> None:
    replica = Replica(Iterations(token=0.0))
    for arrival in all_at_once(A, 12, 1000) + all_at_once(B, 4, 1000):
        replica.add(Sequence.of(arrival), 0.0)
    replica.advance(1.0)
    waits = [each for each in replica.sequences.values() if each.adapter == B]
    assert all(each.made == 0 for each in waits)
    for number in range(8):  # 4 of 8 are not enough
        replica.remove(f"a-{number}")  # type: ignore[arg-type]
    replica.advance(2.0)
    assert all(each.made > 0 for each in waits)


def test_what_came_from_elsewhere_has_its_turn_by_its_age() -> None:
    replica = Replica(PLAIN)
    for arrival in arrivals("new", [1.0] * 16, [(1, 100)] * 16, A):
        replica.add(Sequence.of(arrival), 1.0)
    [old] = arrivals("old", [0.0], [(1, 10)], B)
    replica.add(Sequence.of(old), 1.0)
    [(first, _)] = replica.advance(1.5)
    assert first.id == "old-0"


def test_a_copy_of_a_model_runs_alone_and_is_swapped_in() -> None:
    replica = CopyReplica(Iterations(token=0.0), copies=1, swap=0.5)
    seconds = ends(replica, all_at_once(A, 1) + all_at_once(B, 1))
    assert seconds == {"a-0": pytest.approx(0.5 + 1.5), "b-0": pytest.approx(2 * (0.5 + 1.5))}


def test_a_copy_that_is_there_is_not_swapped_in() -> None:
    replica = CopyReplica(Iterations(token=0.0), copies=2, swap=0.5)
    ends(replica, all_at_once(A, 1) + all_at_once(B, 1))
    again = ends(replica, arrivals("again", [100.0], [(1, 100)], A))
    assert again == {"again-0": pytest.approx(100 + 1.5)}
