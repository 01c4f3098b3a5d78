"""Streams come at the rates, and with the lengths, that their names promise."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from services.simulator import workloads
from services.simulator.arrivals import (
    Arrival,
    arrivals,
    constant,
    merged,
    on_off,
    poisson,
    ramp,
)


def counts(stream: list[Arrival], start: float = 0, end: float = 900) -> dict[str, int]:
    return dict(Counter(a.request.tenant for a in stream if start <= a.at < end))


def test_a_constant_rate_has_equal_intervals_and_starts_in_its_phase() -> None:
    assert constant(2, 2) == [0.25, 0.75, 1.25, 1.75]
    assert constant(2, 1, start=10, phase=0) == [10, 10.5]


def test_a_poisson_stream_has_its_rate_and_the_spread_of_its_intervals() -> None:
    times = poisson(5, 2000, random.Random(0))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.2, rel=0.05)
    assert variance**0.5 == pytest.approx(mean, rel=0.05)
    assert times == poisson(5, 2000, random.Random(0))


def test_an_on_off_stream_is_silent_every_other_minute() -> None:
    times = on_off(2, 240)
    assert len(times) == 240
    assert {int(at) // 60 for at in times} == {0, 2}


def test_a_ramp_comes_to_its_last_rate_at_the_end() -> None:
    times = ramp(0.2, 2, 600)
    assert len(times) == pytest.approx(660, abs=1)
    # The rate in the middle of a minute is the mean of that minute.
    for minute in range(10):
        rate = 0.2 + 1.8 * (minute + 0.5) / 10
        came = sum(minute * 60 <= at < (minute + 1) * 60 for at in times)
        assert came == pytest.approx(60 * rate, abs=1.5)
    assert ramp(1, 1, 10) == constant(1, 10)


def test_a_ramp_may_fall() -> None:
    falling = ramp(2, 0, 10)
    assert len(falling) == 10
    assert sum(at < 5 for at in falling) == pytest.approx(7.5, abs=1)


def test_streams_are_merged_by_time() -> None:
    stream = merged(arrivals("b", [1, 3]), arrivals("a", [1, 2]))
    assert [(a.at, a.request.id) for a in stream] == [
        (1, "b-0"), (1, "a-0"), (2, "a-1"), (3, "b-1"),
    ]  # fmt: skip


def test_a_request_cannot_be_cancelled_before_it_comes() -> None:
    [arrival] = arrivals("a", [5])
    with pytest.raises(ValueError, match="before it came"):
        Arrival(5, arrival.request, 1, cancel_at=4)


@pytest.mark.parametrize("name", workloads.STEADY)
def test_steady_workloads_are_in_order_with_ids_of_their_own(name: str) -> None:
    stream = workloads.STEADY[name](600)
    assert all(earlier.at < later.at for earlier, later in pairwise(stream))
    assert len({arrival.request.id for arrival in stream}) == len(stream)
    assert all(a.request.prompt_tokens == a.output_tokens == 256 for a in stream)
    assert stream[0].at >= 0
    assert stream[-1].at < 600


def test_rates_are_those_of_the_table() -> None:
    assert counts(workloads.overload()) == {"1": 900, "2": 1800}
    assert counts(workloads.proportional()) == {"1": 150, "2": 300, "3": 900}
    assert counts(workloads.on_off_less()) == {"1": 150, "2": 1200}
    assert counts(workloads.on_off_overload()) == {"1": 600, "2": 1800}
    assert counts(workloads.increase()) == {"1": 300, "2": 660}
    assert sorted(counts(workloads.overload_multi()).values()) == [240] * 3 + [360] * 5
    assert set(counts(workloads.weighted()).values()) == {600}


def test_the_distribution_shifts_twice() -> None:
    stream = workloads.dist_shift()
    assert counts(stream, 0, 300) == {"1": 90, "2": 600}
    assert counts(stream, 300, 600) == {"1": 300, "2": 300}
    assert counts(stream, 600, 900) == {"1": 150, "2": 450}


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("poisson_short_long", {"1": (64, 64), "2": (256, 256)}),
        ("poisson_short_long_2", {"1": (512, 32), "2": (32, 512)}),
    ],
)
def test_random_workloads_have_their_rates(name: str, lengths: dict[str, object]) -> None:
    stream = workloads.RANDOM[name](random.Random(3), 600)
    seen = {a.request.tenant: (a.request.prompt_tokens, a.output_tokens) for a in stream}
    assert seen == lengths
    came = counts(stream)
    assert came["1"] == pytest.approx(4800, abs=250)
    assert came["2"] == pytest.approx(900, abs=100)


def test_the_arena_has_the_parts_and_the_lengths_of_the_trace() -> None:
    stream = workloads.arena(random.Random(0), 150)
    came = sorted(counts(stream).values(), reverse=True)
    assert came[:5] == [296, 262, 199, 120, 67]
    assert (len(came), came[-1], sum(came)) == (27, 1, 1500)
    many = workloads.arena(random.Random(0), 1500)
    prompts, outputs = ([f(a) for a in many] for f in (prompt_of, output_of))
    assert sum(prompts) / len(prompts) == pytest.approx(136, rel=0.05)
    assert sum(outputs) / len(outputs) == pytest.approx(256, rel=0.05)
    assert (min(prompts), max(prompts)) == (2, 1021)
    assert min(outputs) >= 2
    assert max(outputs) == 977


def prompt_of(arrival: Arrival) -> int:
    return arrival.request.prompt_tokens


def output_of(arrival: Arrival) -> int:
    return arrival.request.max_tokens


@pytest.mark.parametrize(("zipf", "most", "least"), [(None, 1000, 1000), (1.0, 1920, 480)])
def test_many_adapters_are_as_many_as_tenants(
    zipf: float | None, most: float, least: float
) -> None:
    stream = workloads.many_adapters(
        random.Random(0), tenants=4, zipf=zipf, per_second=4, seconds=1000
    )
    came = counts(stream, end=1000)
    assert came["1"] == pytest.approx(most, abs=100)
    assert came["4"] == pytest.approx(least, abs=100)
    assert {(a.request.tenant, a.request.adapter) for a in stream} == {
        (str(number), f"{number:064x}") for number in range(1, 5)
    }
