"""What the fleet knows of a worker's adapters is what the worker has, however it tells it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.clock import ManualClock
from services.core.errors import InvalidRequest
from services.core.reports import (
    AdapterChanges,
    AdapterLoad,
    AdapterPlace,
    LoadTimes,
    SequenceLoad,
    SequenceSum,
    SequenceSums,
    TransferTimes,
    WorkerReport,
)
from services.core.types import Digest, Fingerprint, RequestId, WorkerId
from services.runtime.wire_reports import report_from_wire, report_to_wire
from services.scheduler.fleet import Fleet
from services.scheduler.worker import Identity

IDENTITY = Identity(WorkerId("w"), "w", "base", Fingerprint("f"), "cpu")

adapters = st.dictionaries(
    st.sampled_from([*map(Digest, "abcd")]),
    st.tuples(st.sampled_from(AdapterPlace), st.integers(0, 2)),
).map(
    lambda there: tuple(
        AdapterLoad(digest, place, running=running)
        for digest, (place, running) in sorted(there.items())
    )
)


def whole(adapters: tuple[AdapterLoad, ...]) -> WorkerReport:
    resident = (each.digest for each in adapters if each.place is AdapterPlace.DEVICE)
    return WorkerReport(adapters=adapters, resident=tuple(resident))


def heard(report: WorkerReport) -> WorkerReport:
    return report_from_wire(report_to_wire(report))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(first=adapters, later=st.lists(st.tuples(adapters, st.booleans()), max_size=5))
def test_changes_come_to_what_the_worker_has(
    first: tuple[AdapterLoad, ...], later: list[tuple[tuple[AdapterLoad, ...], bool]]
) -> None:
    fleet = Fleet(ManualClock(), lease_seconds=3.0)
    seat, before = fleet.join(IDENTITY, heard(whole(first))), first
    for now, by_changes in later:
        report = whole(now)
        if by_changes:
            changes = AdapterChanges.between(before, now)
            report = replace(report, adapters=None, changes=changes)
        seat.report(heard(report))
        (known,) = fleet.live()
        assert known.report == whole(now)
        before = now


def test_changes_name_nothing_that_is_as_it_was() -> None:
    a, b, c = (AdapterLoad(Digest(name), AdapterPlace.HOST) for name in "abc")
    moved = replace(b, place=AdapterPlace.DEVICE)
    changes = AdapterChanges.between((a, b, c), (a, moved))
    assert changes == AdapterChanges((moved,), (c.digest,))
    message = report_to_wire(replace(whole((a, moved)), adapters=None, changes=changes))
    assert not message.resident_adapters
    assert not message.HasField("adapters")


def test_changes_of_what_was_not_said_are_refused() -> None:
    fleet = Fleet(ManualClock(), lease_seconds=3.0)
    with pytest.raises(InvalidRequest, match="tells all adapters"):
        fleet.join(IDENTITY, WorkerReport(changes=AdapterChanges()))
    seat = fleet.join(IDENTITY, WorkerReport())
    with pytest.raises(InvalidRequest, match="tells all adapters"):
        seat.report(WorkerReport(changes=AdapterChanges()))


def test_sums_are_told_and_those_of_a_release_before_are_not_known() -> None:
    runs = SequenceLoad(RequestId("r"), None, 7, 5)
    waits = replace(runs, tokens=20, waiting=True)
    sums = SequenceSums.of([runs, waits, waits])
    assert sums == SequenceSums(SequenceSum(1, 7, 5), SequenceSum(2, 40, 10))
    assert heard(WorkerReport(sums=sums)).sums == sums
    assert heard(WorkerReport()).sums is None


def test_what_loads_take_is_told() -> None:
    times = LoadTimes(fetch=TransferTimes(20.0, 0.5, 100))
    assert heard(WorkerReport(load_times=times)).load_times == times
    assert heard(WorkerReport()).load_times == LoadTimes()
