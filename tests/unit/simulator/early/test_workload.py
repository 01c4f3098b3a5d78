"""Bursts: who is asked for changes every minute."""

import random
import statistics
from collections import Counter

import pytest

from services.simulator.early.workload import Bursts, adapter_names, bursts


def test_another_minute_has_other_favourites() -> None:
    coming = bursts(random.Random(0), Bursts(30.0, seconds=120.0))
    halves = [
        Counter(a.request.adapter for a in coming if start <= a.at < start + 60)
        for start in (0, 60)
    ]
    first, second = (half.most_common(1)[0][0] for half in halves)
    assert first != second
    assert all(
        half[favourite] > 150 for half, favourite in zip(halves, (first, second), strict=True)
    )


def test_lengths_are_clipped() -> None:
    for arrival in bursts(random.Random(0), Bursts(30.0)):
        assert 4 <= arrival.request.prompt_tokens <= 1024
        assert arrival.request.prompt_tokens + arrival.output_tokens <= 2048


def test_a_ratio_of_lengths_leaves_their_mean() -> None:
    def mean(ratio: float, *, parity: int | None = None) -> float:
        asked = Bursts(20.0, seconds=600.0, length_ratio=ratio, evenness=10.0)
        return statistics.fmean(
            arrival.output_tokens
            for arrival in bursts(random.Random(0), asked)
            if parity is None or int(arrival.request.tenant) % 2 == parity
        )

    assert mean(4) == pytest.approx(mean(1), rel=0.1)
    assert mean(4, parity=1) == pytest.approx(4 * mean(4, parity=0), rel=0.15)


def test_every_adapter_is_asked_for_where_demand_is_even() -> None:
    coming = bursts(random.Random(0), Bursts(30.0, adapters=16, evenness=10.0))
    assert {arrival.request.adapter for arrival in coming} == set(adapter_names(16))
