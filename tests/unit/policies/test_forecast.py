"""What is foretold, and what is brought where before it is asked for."""

import pytest

from services.core.types import Digest, WorkerId
from services.policies.placement.forecast import Forecast, Season
from services.policies.placement.preload import Preload, preloads

A, B = Digest("a"), Digest("b")
SEASON = Season(bucket_seconds=10.0, buckets=8)


def test_nothing_is_expected_of_who_never_came() -> None:
    assert Forecast(SEASON).expected(A, 100.0) == 0.0


def test_a_steady_demand_goes_on() -> None:
    forecast = Forecast(SEASON)
    for second in range(200):
        forecast.arrived(A, float(second), 3)
    assert forecast.expected(A, 200.0) == pytest.approx(30.0)


def test_what_has_ended_fades() -> None:
    forecast = Forecast(SEASON)
    forecast.arrived(A, 5.0, 100)
    fading = [forecast.expected(A, float(second)) for second in (10, 20, 30, 200)]
    assert fading == sorted(fading, reverse=True)
    assert fading[0] == 100.0
    assert fading[-1] < 1


def test_what_comes_every_period_is_expected_before_it_comes() -> None:
    forecast, plain = Forecast(SEASON), Forecast(Season(bucket_seconds=10.0, buckets=400))
    for period in range(6):
        for each in (forecast, plain):
            each.arrived(A, period * 80.0 + 45.0, 40)
    morning = 6 * 80.0 + 40.0
    assert forecast.expected(A, morning - 20.0) < 5
    assert forecast.expected(A, morning) > 10
    assert forecast.expected(A, morning) > 2 * plain.expected(A, morning)


def test_a_season_that_was_none_is_not_heeded() -> None:
    forecast = Forecast(SEASON)
    for bucket in range(100):  # five times as much in buckets that no period repeats
        forecast.arrived(A, bucket * 10.0, 50 if bucket % 11 < 5 else 10)
    course = forecast.course(A)
    assert course is not None
    ema, seasonal = course.errors
    assert seasonal > ema
    assert course.best(SEASON) == course.foretold[0]


def test_the_idle_are_forgotten() -> None:
    forecast = Forecast(Season(bucket_seconds=10.0, buckets=8, remembered=10))
    for number in range(50):
        forecast.arrived(Digest(str(number)), 1.0)
    assert forecast.known == 10
    assert len(list(forecast.every(50.0))) == 10
    assert list(forecast.every(500.0)) == []
    assert forecast.known == 0


def test_a_season_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="period"):
        Season(buckets=2)


HOMES = {A: [WorkerId("w1"), WorkerId("w2")], B: [WorkerId("w1")]}


def test_the_most_wanted_is_brought_to_its_homes() -> None:
    wanted = [(B, 2.0), (A, 5.0)]
    found = preloads(wanted, HOMES.__getitem__, lambda _: (), most_each=2)
    assert found == [
        Preload(A, WorkerId("w1")),
        Preload(A, WorkerId("w2")),
        Preload(B, WorkerId("w1")),
    ]


def test_no_worker_gets_many_at_once() -> None:
    found = preloads([(A, 5.0), (B, 2.0)], HOMES.__getitem__, lambda _: ())
    assert [(each.adapter, each.worker) for each in found] == [(A, "w1"), (A, "w2")]
    assert len(preloads([(A, 5.0)], HOMES.__getitem__, lambda _: (), most=1)) == 1


def test_who_is_somewhere_is_not_brought_again() -> None:
    """As many have it as it has homes: that they are others is no reason to load."""
    there = {A: {WorkerId("w7")}, B: {WorkerId("w7")}}
    found = preloads([(A, 5.0), (B, 2.0)], HOMES.__getitem__, there.__getitem__)
    assert found == [Preload(A, WorkerId("w1"))]


def test_what_is_hardly_wanted_is_not_brought() -> None:
    assert preloads([(A, 0.9)], HOMES.__getitem__, lambda _: ()) == []
