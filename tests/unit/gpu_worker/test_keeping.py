"""What the operator wants on a device that has no room for all of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.core.reports import Orders, WorkerReport
from services.core.types import Digest
from services.gpu_worker.attendance import Attendance, Build
from services.gpu_worker.engine.engine import Weights
from services.gpu_worker.engine.host_cache import HostCache
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.worker import Worker
from services.runtime.beside import beside
from tests.engines import TestBench, digest_of, greedy
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tmp_path_factory.mktemp("tiny")
    return load_model(save_reference(make_reference("llama"), folder))


class Shelf:
    """A store that counts what is fetched."""

    def __init__(self, weights: dict[Digest, Weights]) -> None:
        self._weights = weights
        self.fetched: Counter[Digest] = Counter()

    async def fetch(self, digest: Digest) -> Weights:
        self.fetched[digest] += 1
        return self._weights[digest]


@dataclass(slots=True)
class World:
    worker: Worker
    attendance: Attendance
    shelf: Shelf
    adapters: list[Digest]

    async def turns(self, count: int, adapter: Digest | None = None) -> None:
        """Of the engine."""
        with self.worker.session() as session:
            request = greedy(f"r{adapter}{count}", range(2, 10), adapter, count)
            self.worker.start(session, request)
            while session.running:
                await session.outcomes()

    async def reported(self, is_it: Callable[[WorkerReport], bool]) -> WorkerReport:
        async with asyncio.timeout(10):
            while not is_it(report := await self.attendance.report()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return report


@asynccontextmanager
async def crowded(model: LoadedModel, *, halves: int) -> AsyncIterator[World]:
    """Three adapters; half of the pool is so many tenths of one, host memory has room for one."""
    config, bench = adapter_configs()["qv-4"], TestBench(model)
    data = [
        canonical_of(adapt(make_reference("llama"), config, seed=seed), model.card.fingerprint)
        for seed in range(3)
    ]
    weights = {digest_of(each): bench.parse(each) for each in data}
    pages = next(iter(weights.values())).pages * halves * 2 // 10
    bench = TestBench(model, pages=pages)
    shelf = Shelf(dict(weights))
    worker = Worker(bench.engine, shelf, HostCache(1))
    attendance = Attendance(worker, Build(64, 16, 1000), lambda digest: None)
    async with beside(worker.run()):
        yield World(worker, attendance, shelf, sorted(weights))


async def test_what_has_no_room_is_told_and_not_fetched_again(model: LoadedModel) -> None:
    async with crowded(model, halves=15) as world:
        world.attendance.obey(Orders(1, pinned=frozenset(world.adapters)))
        report = await world.reported(lambda report: len(report.without_room) == 2)
        kept = {load.digest for load in report.adapters or () if load.pinned}
        assert kept.isdisjoint(report.without_room)
        fetched = world.shelf.fetched.total()
        await world.turns(30)
        assert world.shelf.fetched.total() == fetched


async def test_what_is_larger_than_half_of_the_pool_is_told_too(model: LoadedModel) -> None:
    async with crowded(model, halves=9) as world:
        (adapter, *_) = world.adapters
        world.attendance.obey(Orders(1, pinned=frozenset({adapter})))
        report = await world.reported(lambda report: report.without_room == {adapter})
        assert report.resident == ()
        await world.turns(30)
        assert world.shelf.fetched == {adapter: 1}


async def test_what_had_no_room_comes_when_another_is_let_go(model: LoadedModel) -> None:
    async with crowded(model, halves=15) as world:
        world.attendance.obey(Orders(1, pinned=frozenset(world.adapters)))
        report = await world.reported(lambda report: len(report.without_room) == 2)
        world.attendance.obey(Orders(1, pinned=report.without_room))
        await world.reported(lambda report: len(report.without_room) == 1)


async def test_a_request_has_an_adapter_brought_that_cannot_stay(model: LoadedModel) -> None:
    async with crowded(model, halves=15) as world:
        world.attendance.obey(Orders(1, pinned=frozenset(world.adapters)))
        report = await world.reported(lambda report: len(report.without_room) == 2)
        for adapter in report.without_room:
            await world.turns(2, adapter)
        later = await world.attendance.report()
        assert later.without_room == report.without_room
