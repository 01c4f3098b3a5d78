"""What moves are planned by, of what a worker reports."""

import pytest

from services.core.reports import (
    AdapterLoad,
    AdapterPlace,
    LoadTimes,
    SequenceLoad,
    TransferTimes,
    WorkerReport,
)
from services.core.types import Digest, Fingerprint, RequestId, WorkerId
from services.policies.migration.carriage import SECONDS_A_BYTE, Carriage
from services.policies.migration.loads import WorkerLoad
from services.policies.migration.place import Place
from services.scheduler.loads import COPY_MS, FETCH_MS, load_of
from services.scheduler.worker import Identity, Worker


def planned_by(report: WorkerReport, coming: int = 0) -> WorkerLoad:
    identity = Identity(WorkerId("w"), "w:1", "base", Fingerprint("f"), "cpu")
    return load_of(Worker(identity, report, 0.0), (), coming)


def an_adapter(name: str, place: AdapterPlace, size: int = 0) -> AdapterLoad:
    return AdapterLoad(Digest(name), place, size)


def test_an_adapter_costs_a_fetch_a_copy_or_nothing() -> None:
    places = [AdapterPlace.DEVICE, AdapterPlace.HOST, AdapterPlace.LOADING]
    adapters = tuple(an_adapter(place.value, place) for place in places)
    place = Place.of(planned_by(WorkerReport(resident=(Digest("device"),), adapters=adapters)))
    assert [place.load_ms(Digest(name)) for name in ("device", "host", "loading", "else")] == [
        0, COPY_MS, FETCH_MS, FETCH_MS,
    ]  # fmt: skip


def test_an_adapter_costs_what_the_worker_has_measured() -> None:
    times = LoadTimes(TransferTimes(20.0, 0.5, 100), TransferTimes(1.0, 0.1, 100))
    load = planned_by(WorkerReport(load_times=times))
    assert (load.load_ms, load.copy_ms) == (70.0, 11.0)


def test_keys_and_values_cost_what_carrying_is_first_thought_to() -> None:
    load = planned_by(WorkerReport(page_bytes=1_000_000, page_tokens=16))
    assert load.move_ms == pytest.approx(1000 * SECONDS_A_BYTE * 1_000_000 / 16)
    assert load.move_ms is not None
    assert Carriage().pays(1_000_000, 16 * load.move_ms * 1.01)
    assert not Carriage().pays(1_000_000, 16 * load.move_ms * 0.99)
    assert planned_by(WorkerReport()).move_ms is None


def test_one_more_adapter_takes_the_pages_of_the_largest() -> None:
    adapters = tuple(an_adapter(f"{size}", AdapterPlace.HOST, size) for size in (10, 2001, 1000))
    load = planned_by(WorkerReport(page_bytes=1000, page_tokens=16, adapters=adapters))
    assert load.adapter_tokens == 3 * 16
    place = Place.of(load)
    wanted = SequenceLoad(RequestId("r"), Digest("else"), 10, 5)
    assert place.needs(wanted) == 15 + 3 * 16
