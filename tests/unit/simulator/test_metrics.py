"""Metrics of small recordings, against sums done by hand."""

import pytest

from services.core.types import RequestId, TenantId
from services.simulator import metrics
from services.simulator.recording import Charge, Outcome, Recording, RequestRecord

A, B, C = TenantId("a"), TenantId("b"), TenantId("c")


def served(
    tenant: TenantId, arrived: float, first: float, end: float, *, prompt: int, output: int
) -> RequestRecord:
    return RequestRecord(
        RequestId(f"{tenant}{arrived}"), tenant, prompt, output, arrived, first, first, end, output,
        Outcome.FINISHED,
    )  # fmt: skip


def recording(
    *requests: RequestRecord,
    charges: dict[TenantId, list[Charge]] | None = None,
    backlogged: dict[TenantId, list[tuple[float, float]]] | None = None,
    seconds: float = 1000.0,
) -> Recording:
    return Recording(requests, charges or {}, backlogged or {}, seconds)


def silent(tenant: TenantId) -> RequestRecord:
    return RequestRecord(RequestId(tenant), tenant, 1, 1, arrived=0)


def test_shares_are_of_the_service_in_the_interval() -> None:
    charges = {A: [Charge(1, 10, 0), Charge(2, 0, 5)], B: [Charge(2, 0, 15), Charge(9, 500, 0)]}
    given = recording(silent(A), silent(B), charges=charges)
    assert metrics.shares(given, 0, 5) == {A: 20 / 50, B: 30 / 50}
    assert metrics.shares(given, 0, 5, w_p=0, w_q=1) == {A: 5 / 20, B: 15 / 20}
    assert metrics.shares(given, 20, 30) == {A: 0, B: 0}


def test_the_gap_is_the_largest_over_all_intervals_within_the_common_backlog() -> None:
    # W_a - W_b goes 0, +100, -60, -20 from 10 to 50: an interval from the top to the bottom has
    # 160, more than any that begins with the backlog. What comes at 5 and at 50 is outside.
    charges = {
        A: [Charge(5, 900, 0), Charge(20, 100, 0), Charge(40, 0, 20)],
        B: [Charge(30, 0, 80), Charge(50, 900, 0)],
    }
    given = recording(
        silent(A), silent(B), charges=charges, backlogged={A: [(0, 50)], B: [(10, 60)]}
    )
    assert metrics.accumulated_gap(given) == 160
    assert metrics.accumulated_gap(given, w_p=1, w_q=0) == 100


def test_what_is_given_at_one_instant_counts_together() -> None:
    charges = {A: [Charge(5, 100, 0)], B: [Charge(5, 70, 0)]}
    both = {A: [(0.0, 10.0)], B: [(0.0, 10.0)]}
    assert metrics.accumulated_gap(recording(silent(A), silent(B), charges=charges)) == 0
    given = recording(silent(A), silent(B), charges=charges, backlogged=both)
    assert metrics.accumulated_gap(given) == 30


def test_each_common_interval_stands_alone_and_the_worst_pair_counts() -> None:
    charges = {
        A: [Charge(1, 10, 0), Charge(21, 10, 0)],
        B: [],
        C: [Charge(22, 0, 7)],
    }
    backlogged = {A: [(0.0, 5.0), (20.0, 30.0)], B: [(0.0, 40.0)], C: [(20.0, 23.0)]}
    given = recording(silent(A), silent(B), silent(C), charges=charges, backlogged=backlogged)
    # a and b: 10 in each of two intervals; b and c: 14; a and c: 10 up, then 14 down.
    assert metrics.accumulated_gap(given) == 14


def test_the_service_difference_is_what_is_missing_of_the_best_or_of_demand() -> None:
    # 630 seconds: ticks are at 60, 90, ..., 600, and the first window is from 30 to 90.
    a = served(A, 40, 60, 180, prompt=400, output=400)  # 10 a second for two minutes
    b = served(B, 50, 75, 135, prompt=100, output=100)  # 5 a second for one
    last = served(C, 630, 700, 800, prompt=1, output=1)
    differences = metrics.service_differences(recording(a, b, last))
    assert len(differences) == 19
    # a: 30 s of its 10 in 60: 5. Demand 1200 / 60 = 20, but nobody has more: misses 0.
    # b: 15 s of its 5 in 60: 1.25. Demand 300 / 60 = 5: misses min(3.75, 3.75). c asks for nothing.
    assert differences[0] == pytest.approx(3.75)
    # From 60 to 120: a has 10, b 45 s of 5 in 60: 3.75; what they asked for came before 60.
    assert differences[1] == pytest.approx(0 + 3.75)
    # From 90 to 150: a 10; b 45 s of 5 again.
    assert differences[2] == pytest.approx(3.75)
    # From 150 to 210: a 30 s of 10; b nothing, and it asks for nothing.
    assert differences[4] == pytest.approx(0)


def test_rejected_demand_counts_as_missed() -> None:
    a = served(A, 40, 60, 90, prompt=300, output=300)  # 900 within the first window: 15 a second
    b = RequestRecord(RequestId("b"), B, 200, 200, 40, outcome=Outcome.REJECTED)
    differences = metrics.service_differences(recording(a, b), seconds=630)
    assert differences[0] == pytest.approx(600 / 60)


def test_the_accumulated_difference_is_most_less_least_since_the_warm_up() -> None:
    a = served(A, 0, 0, 60, prompt=200, output=200)  # 10 a second; 300 of it in the warm-up
    b = served(B, 0, 60, 120, prompt=100, output=100)  # 5 a second
    given = recording(a, b)
    differences = metrics.accumulated_differences(given, seconds=630)
    assert differences[0] == pytest.approx(300)  # at 60: a has 300
    assert differences[1] == pytest.approx(300 - 150)  # at 90
    assert differences[2:] == pytest.approx([0] * 17)
    assert metrics.accumulated_differences(given, seconds=630, w_q=0)[0] == pytest.approx(100)


def test_who_is_still_served_at_the_end_counts_for_what_it_has() -> None:
    a = RequestRecord(RequestId("a"), A, 100, 500, 0, 0, 60, None, 10)
    b = silent(B)
    given = recording(a, b, seconds=180)  # 120 in 120 seconds
    assert metrics.accumulated_differences(given, seconds=180)[-1] == pytest.approx(112.5)


def test_response_times_are_from_arrival_to_first_token() -> None:
    waits = [float(number) for number in range(1, 201)]
    requests = [served(A, 10, 10 + wait, 300, prompt=1, output=1) for wait in waits]
    times = metrics.response_times(recording(*requests, silent(B)))
    assert times == {A: metrics.Times(mean=100.5, p50=100.0, p99=198.0)}


def test_throughput_is_of_what_finished() -> None:
    cancelled = RequestRecord(RequestId("x"), A, 100, 9, 0, 0, 1, 2, 9, outcome=Outcome.CANCELLED)
    given = recording(served(A, 0, 1, 2, prompt=30, output=20), cancelled, seconds=10)
    assert metrics.throughput(given) == 5
    assert metrics.throughput(recording(seconds=0)) == 0
