"""Adapters in a replay are never more than its slots, and every one comes to its turn."""

import random
from collections.abc import Collection, Iterator
from dataclasses import replace

import pytest

from services.core.types import Digest
from services.policies.fairness.admission import Request
from services.policies.fairness.baselines import FirstComeFirstServed
from services.policies.fairness.vtc import Rules, VirtualTokenCounters
from services.simulator.arrivals import Arrival
from services.simulator.recording import Outcome, Recording
from services.simulator.replay import replay
from services.simulator.workloads import many_adapters

LOAD = 0.25


def crowd(seed: int) -> list[Arrival]:
    """Many more adapters than slots, more requests than room, some cancelled."""
    random_ = random.Random(seed)
    return [
        replace(one, cancel_at=one.at + random_.uniform(0, 5)) if random_.random() < 0.2 else one
        for one in many_adapters(random_, tenants=12, zipf=1.0, per_second=12, seconds=20)
    ]


def most_used(recording: Recording) -> int:
    """Adapters that admitted requests had at once; every tenant has one of its own."""
    used = [
        (record.admitted, recording.seconds if record.ended is None else record.ended, record)
        for record in recording.requests
        if record.admitted is not None
    ]
    return max(
        len({record.tenant for start, end, record in used if start <= at < end})
        for at, _, _ in used
    )


class Listening(VirtualTokenCounters):
    """Keeps what it is told of the adapters that are there."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self.most = 0

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        self.most = max(self.most, len(resident))
        return super().candidates(now, resident)


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("band", [0.0, 2000.0])
def test_there_are_never_more_adapters_than_slots(slots: int, band: float) -> None:
    policy = Listening(Rules(band=band))
    recording = replay(crowd(slots), policy, kv_tokens=3000, slots=slots, load_seconds=LOAD)
    assert slots - 1 <= most_used(recording) <= slots
    assert policy.most == slots


@pytest.mark.parametrize("seed", range(3))
def test_every_request_ends_however_few_the_slots(seed: int) -> None:
    recording = replay(crowd(seed), FirstComeFirstServed(), slots=1, load_seconds=LOAD)
    outcomes = {record.outcome for record in recording.requests}
    assert outcomes == {Outcome.FINISHED, Outcome.CANCELLED}


def test_without_slots_adapters_are_nothing_to_the_replica() -> None:
    coming = crowd(0)
    bare = [replace(one, request=replace(one.request, adapter=None)) for one in coming]
    assert replay(coming, FirstComeFirstServed()) == replay(bare, FirstComeFirstServed())


@pytest.mark.parametrize(("slots", "load_seconds"), [(0, 1.0), (1, -1.0), (1, float("inf"))])
def test_impossible_figures_are_refused(slots: int, load_seconds: float) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        replay([], FirstComeFirstServed(), slots=slots, load_seconds=load_seconds)
