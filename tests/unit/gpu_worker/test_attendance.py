"""What a worker tells the scheduler, and does for it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.core.reports import (
    AdapterChanges,
    AdapterPlace,
    MoveOrder,
    MoveOutcome,
    Orders,
    WorkerReport,
)
from services.core.types import Destination, Digest, RequestId, WorkerId
from services.gpu_worker.attendance import Attendance, Build
from services.gpu_worker.engine.host_cache import HostCache
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.worker import Worker
from services.runtime.beside import beside
from tests.engines import TestBench, digest_of, greedy
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference

ELSEWHERE = Destination(WorkerId("other"), "127.0.0.1:1")
PAGES = 200


class Shelf:
    """A store with one adapter."""

    def __init__(self, weights: Any) -> None:
        self._weights = weights

    async def fetch(self, digest: Digest) -> Any:
        return self._weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tmp_path_factory.mktemp("tiny")
    return load_model(save_reference(make_reference("llama"), folder))


@asynccontextmanager
async def present(model: LoadedModel) -> AsyncIterator[tuple[Attendance, Worker, Digest]]:
    bench = TestBench(model, pages=PAGES)
    adapted = adapt(make_reference("llama"), adapter_configs()["qv-4"], seed=1)
    data = canonical_of(adapted, model.card.fingerprint)
    worker = Worker(bench.engine, Shelf(bench.parse(data)), HostCache(1 << 30))
    async with beside(worker.run()):
        yield Attendance(worker, Build(64, 16, 1000), lambda digest: None), worker, digest_of(data)


async def test_it_tells_where_adapters_are_once(model: LoadedModel) -> None:
    async with present(model) as (attendance, worker, digest):
        attendance.begin()
        assert (await attendance.report()).adapters == ()
        await worker.prefetch(digest)
        (load,) = (await attendance.report()).adapters or ()
        assert (load.digest, load.place) == (digest, AdapterPlace.HOST)
        assert (await attendance.report()).adapters is None
        attendance.begin()
        assert (await attendance.report()).adapters == (load,)


async def test_whoever_takes_changes_is_told_what_is_other_once_it_was_told_all(
    model: LoadedModel,
) -> None:
    async with present(model) as (attendance, worker, digest):
        attendance.begin()
        assert (await attendance.report()).changes is None
        attendance.obey(Orders(1, takes_changes=True))
        assert (await attendance.report()).changes == AdapterChanges()
        await worker.prefetch(digest)
        report = await attendance.report()
        assert report.adapters is None
        (load,) = report.changes.came if report.changes else ()
        assert (load.digest, load.place) == (digest, AdapterPlace.HOST)
        attendance.begin()  # another one listens: it knows nothing
        report = await attendance.report()
        assert (report.adapters, report.changes) == ((load,), None)
        attendance.obey(Orders(1))  # of the release before
        assert (await attendance.report()).changes is None


async def test_what_is_pinned_comes_to_the_device_and_stays(model: LoadedModel) -> None:
    async with present(model) as (attendance, worker, digest):
        attendance.obey(Orders(1, pinned=frozenset({digest})))
        (adapter,) = (
            await reported(attendance, lambda r: bool(r.adapters and r.adapters[0].pinned))
        ).adapters or ()
        assert adapter.place is AdapterPlace.DEVICE
        assert worker.state.free_pages < PAGES  # nobody can have its pages
        times = (await attendance.report()).load_times
        assert times.fetch is not None  # it was fetched, and copied to the device
        assert times.copy is not None
        assert times.fetch.typical_bytes == times.copy.typical_bytes > 0
        attendance.obey(Orders(1))
        await reported(attendance, lambda report: report.free_pages == PAGES)


async def test_an_earlier_term_is_not_obeyed(model: LoadedModel) -> None:
    async with present(model) as (attendance, worker, _):
        attendance.obey(Orders(2))
        attendance.obey(Orders(1, draining=True))
        assert not worker.state.draining
        attendance.obey(Orders(2, draining=True))
        assert worker.state.draining
        assert attendance.is_sent_away.is_set()


async def test_sequences_are_told_when_asked_for_and_moves_are_made_once(
    model: LoadedModel,
) -> None:
    async with present(model) as (attendance, worker, _):
        with worker.session() as session:
            worker.start(session, greedy("a", range(2, 40), None, 200), movable=True)
            await session.outcomes()
            assert (await attendance.report()).sequences is None
            attendance.obey(Orders(1, tell_sequences=True))
            told = await reported(attendance, lambda report: report.sequences is not None)
            loads = told.sequences or ()
            assert [(load.request, load.waiting) for load in loads] == [("a", False)]
            assert loads[0].tokens >= 38
            order = MoveOrder("m", (RequestId("a"), RequestId("b")), ELSEWHERE)
            attendance.obey(Orders(1, moves=(order,)))
            attendance.obey(Orders(1, moves=(order,)))
            moved = (await reported(attendance, lambda report: len(report.moved) == 2)).moved
        assert [(each.request, each.outcome) for each in moved] == [
            ("a", MoveOutcome.LEFT),
            ("b", MoveOutcome.GONE),
        ]
        assert (await attendance.report()).moved == ()


async def test_an_engine_that_hangs_is_noticed_and_told_of_as_it_was(model: LoadedModel) -> None:
    async with present(model) as (attendance, worker, _):
        with worker.session() as session:
            worker.start(session, greedy("a", range(2, 40), None, 2000))
            await session.outcomes()
            goes_on = threading.Event()
            hangs = asyncio.create_task(worker.between_steps(lambda _: goes_on.wait(30)))
            try:
                async with asyncio.timeout(5):
                    await worker.hung(0.3)
                steps = (await attendance.report()).steps
                assert (await attendance.report()).steps == steps
            finally:
                goes_on.set()
            await hangs
            await reported(attendance, lambda report: report.steps > steps)


async def reported(attendance: Attendance, wanted: Callable[[WorkerReport], bool]) -> WorkerReport:
    """The first report that is as wanted."""
    async with asyncio.timeout(10):
        while not wanted(report := await attendance.report()):
            await attendance.wait(0.01)
    return report
