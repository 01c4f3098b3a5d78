"""Measures of a gateway that runs, against sums over everything that happened."""

from itertools import combinations
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.types import TenantId
from services.policies.fairness.baselines import FirstComeFirstServed
from services.policies.fairness.cost import WeightedTokens
from services.policies.fairness.measured import Measured
from services.policies.fairness.measures import (
    OTHER,
    MeasureKnobs,
    Measures,
    jain_index,
    service_difference,
)
from services.policies.fairness.policies import POLICIES, Knobs
from services.simulator import metrics
from services.simulator.replay import replay
from services.simulator.workloads import on_off_less, overload

TENANTS = [TenantId(name) for name in "abcde"]


class Event(NamedTuple):
    at: float
    what: str
    tenant: TenantId
    charge: float = 0.0


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    now, waiting, made = 0.0, set[TenantId](), list[Event]()
    for later, tenant, drawn, charge in draw(
        st.lists(
            st.tuples(
                st.integers(0, 9),
                st.sampled_from(TENANTS),
                st.sampled_from(["turns", "served", "served", "asked"]),
                st.integers(1, 500),
            ),
            max_size=80,
        )
    ):
        now += later
        if drawn != "turns":
            made.append(Event(now, drawn, tenant, float(charge)))
            continue
        made.append(Event(now, "rests" if tenant in waiting else "waits", tenant))
        waiting ^= {tenant}
    return made


def told(measures: Measures, happened: list[Event]) -> None:
    for event in happened:
        if event.what in ("waits", "rests"):
            getattr(measures, event.what)(event.tenant, event.at)
        else:
            getattr(measures, event.what)(event.tenant, event.charge, event.at)


def widest(happened: list[Event]) -> float:
    """Over every pair, and every stretch of events all through which both waited."""
    gap = 0.0
    for one, other in combinations(TENANTS, 2):
        ends = {("rests", one), ("rests", other)}
        for start in range(len(happened)):
            waiting = {t for t in (one, other) if _waits(happened[: start + 1], t)}
            ahead = 0.0
            for event in happened[start + 1 :]:
                if waiting != {one, other} or (event.what, event.tenant) in ends:
                    break
                if event.what == "served":
                    ahead += {one: event.charge, other: -event.charge}.get(event.tenant, 0.0)
                    gap = max(gap, abs(ahead))
    return gap


def _waits(happened: list[Event], tenant: TenantId) -> bool:
    turns = [e.what for e in happened if e.tenant == tenant and e.what in ("waits", "rests")]
    return bool(turns) and turns[-1] == "waits"


def test_jains_index_is_one_for_equals_and_a_half_for_one_of_two() -> None:
    assert jain_index([3, 3, 3]) == pytest.approx(1)
    assert jain_index([5, 0]) == pytest.approx(0.5)
    assert jain_index([1, 3]) == pytest.approx(16 / 20)
    with pytest.raises(ValueError, match="nobody"):
        jain_index([0, 0])


@settings(max_examples=200, deadline=None)
@given(events())
def test_the_gap_is_that_of_every_stretch_of_every_pair(happened: list[Event]) -> None:
    measures = Measures(MeasureKnobs(seconds=1e9))
    told(measures, happened)
    assert measures.report(1e6).gap == pytest.approx(widest(happened))


@settings(max_examples=200, deadline=None)
@given(events(), st.integers(1, 4))
def test_the_most_served_are_named_and_the_rest_summed(happened: list[Event], most: int) -> None:
    measures = Measures(MeasureKnobs(named=most))
    told(measures, happened)
    totals = {
        tenant: sum(e.charge for e in happened if e.what == "served" and e.tenant == tenant)
        for tenant in {e.tenant for e in happened if e.what == "served"}
    }
    reported = dict(measures.report(1e6).service)
    other = reported.pop(OTHER, 0.0)
    assert sorted(reported.values()) == sorted(totals.values())[-most:]
    assert all(totals[tenant] == service for tenant, service in reported.items())
    assert other + sum(reported.values()) == pytest.approx(sum(totals.values()))
    assert len(reported) <= most


@settings(max_examples=200, deadline=None)
@given(events())
def test_indices_are_of_the_window_that_is_over(happened: list[Event]) -> None:
    measures = Measures(MeasureKnobs(seconds=20.0))
    starts = [happened[0].at] if happened else []
    for event in happened:
        if event.at >= starts[-1] + 20:
            starts.append(event.at)
    told(measures, happened)
    found = measures.report(happened[-1].at if happened else 0.0).indices
    if len(starts) < 2:
        assert found.jain is found.dispersion is None
        return
    start, end = starts[-2:]
    within = [e for e in happened if start <= e.at < end]
    came = {e.tenant for e in within if e.what == "waits" and e.at > start}
    before_end = [e for e in happened if e.at < end]
    even = {tenant for tenant in TENANTS if _waits(before_end, tenant)} - came

    def total(what: str) -> dict[TenantId, float]:
        given_ = [e for e in within if e.what == what]
        tenants = {e.tenant for e in within if e.what in ("served", "asked")}
        return {t: sum(e.charge for e in given_ if e.tenant == t) / (end - start) for t in tenants}

    served = total("served")
    assert found.difference == pytest.approx(service_difference(served, total("asked")))
    got = [served.get(t, 0.0) for t in even]
    if len(got) < 2 or not any(got):
        assert found.jain is found.dispersion is None
    else:
        assert found.jain == pytest.approx(jain_index(got))
        assert found.dispersion == pytest.approx(max(got) - min(got))


def test_state_is_bounded_however_many_come() -> None:
    knobs = MeasureKnobs(named=3, known=50, seconds=1e9)
    measures = Measures(knobs)
    for number in range(5000):
        tenant = TenantId(f"t{number}")
        measures.waits(tenant, 0.0)
        measures.asked(tenant, 1.0, 0.0)
        measures.served(tenant, 1.0, 0.0)
        if number >= 10:
            measures.rests(TenantId(f"t{number - 10}"), 0.0)
    report = measures.report(0.0)
    assert sum(report.service.values()) == 5000
    assert len(report.service) == knobs.named + 1
    assert len(measures._service) == knobs.known
    assert len(measures._watched) == knobs.named
    assert len(measures._pairs) == 3
    assert measures._window is not None
    assert len(measures._window.asked) == len(measures._window.served) == knobs.known


def test_who_waits_on_is_watched_when_another_leaves() -> None:
    measures = Measures(MeasureKnobs(named=2))
    a, b, c = TENANTS[:3]
    for tenant in (a, b, c):
        measures.waits(tenant, 0.0)
    measures.rests(a, 1.0)
    measures.served(c, 70.0, 1.0)
    assert measures.report(1.0).gap == 70


def test_weights_count_where_tenants_are_compared() -> None:
    a, b = TENANTS[:2]
    measures = Measures()
    for tenant, charge, weight in ((a, 200.0, 2.0), (b, 100.0, 1.0)):
        measures.waits(tenant, 0.0)
        measures.served(tenant, charge, 0.0, weight)
    measures.served(a, 200.0, 61.0, 2.0)
    report = measures.report(61.0)
    assert report.service == {a: 400, b: 100}
    assert report.indices.jain == pytest.approx(1)
    assert report.indices.dispersion == 0
    assert report.gap == 100


@pytest.mark.parametrize("name", ["vtc", "fcfs", "drr"])
def test_they_are_what_a_replay_records(name: str) -> None:
    policy = Measured(
        POLICIES[name](Knobs()), Measures(MeasureKnobs(seconds=1e9)), WeightedTokens()
    )
    recording = replay(overload(90), policy, until=90)
    report = policy.report(90.0)
    assert report.gap == pytest.approx(metrics.accumulated_gap(recording), rel=0.02)
    assert report.service == {
        tenant: recording.service(tenant, 0, 1e9) for tenant in recording.tenants
    }


def test_nothing_is_kept_of_requests_that_are_over() -> None:
    policy = Measured(FirstComeFirstServed(), Measures(), WeightedTokens())
    replay(on_off_less(60), policy)
    assert not policy._waiting
    assert not policy._running
    assert not policy._queued
    assert policy.report(1e6).waiting == 0
