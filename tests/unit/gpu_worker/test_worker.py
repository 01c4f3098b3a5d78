"""The loop around the engine: streams, cancellation, adapters that arrive or do not."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.core.errors import CorruptData, InvalidRequest, ServingError, TooLate, Unavailable
from services.core.types import Digest, RequestId, TokenPiece
from services.gpu_worker.engine.host_cache import HostCache
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.adapters import AdapterReader, AdapterWeights
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.threads import (
    engine_thread,
    keep_apart,
    processors,
    side_threads,
)
from services.gpu_worker.session import Session
from services.gpu_worker.worker import Worker
from tests.engines import TestBench, digest_of, greedy
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference

PROMPT = list(range(2, 12))


class Shelf:
    """Adapters that are there, or an error; `gate` holds deliveries back."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.files: dict[Digest, bytes] = {}
        self.fetched: list[Digest] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, digest: Digest) -> AdapterWeights:
        self.fetched.append(digest)
        await self.gate.wait()
        if digest not in self.files:
            raise Unavailable("the store is away")
        return AdapterReader(self.model, page_tokens=16).read([self.files[digest]], digest)


@pytest.fixture(scope="module")
def reference() -> Any:
    return make_reference("llama")


@pytest.fixture
def shelf(reference: Any, tmp_path: Path) -> Shelf:
    return Shelf(load_model(save_reference(reference, tmp_path)))


@pytest.fixture
def bench(shelf: Shelf) -> TestBench:
    return TestBench(shelf.model, pages=40)


@pytest.fixture
async def worker(shelf: Shelf, bench: TestBench) -> AsyncIterator[Worker]:
    worker = Worker(bench.engine, shelf, HostCache(1 << 30))
    loop = asyncio.create_task(worker.run())
    yield worker
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


def put(shelf: Shelf, bench: TestBench, reference: Any) -> Digest:
    adapted: Any = adapt(reference, adapter_configs()["all-8"], seed=1)
    data = canonical_of(adapted, shelf.model.card.fingerprint)
    adapted.unload()
    digest = digest_of(data)
    shelf.files[digest] = data
    return digest


async def tokens(worker: Worker, request: EngineRequest) -> list[int]:
    with worker.session() as session:
        worker.start(session, request)
        session.finish()
        return [token async for token in drawn_from(session)]


async def drawn_from(session: Session) -> AsyncIterator[int]:
    """Tokens of all its requests, until it ends. Raises the first failure."""
    while outcomes := await session.outcomes():
        for _, outcome in outcomes:
            if isinstance(outcome, ServingError):
                raise outcome
            assert isinstance(outcome, TokenPiece)
            for token in outcome.tokens:
                yield token


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  # the state is plain data
            await asyncio.sleep(0.001)


async def test_streams_run_side_by_side_and_leave_nothing(worker: Worker, bench: TestBench) -> None:
    answers = await asyncio.gather(
        *(tokens(worker, greedy(str(n), PROMPT[n:], None, 12)) for n in range(6))
    )
    alone = TestBench(bench.model, pages=40).generate([greedy("0", PROMPT, None, 12)])
    assert answers[0] == alone[RequestId("0")]
    await until(lambda: worker.state.running == 0)
    assert worker.state.free_pages == 40


async def test_a_closed_stream_frees_its_pages_within_one_step(
    worker: Worker, bench: TestBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[int] = []  # after each step
    publish = worker._publish

    def published(turn: Any) -> None:
        publish(turn)
        free.append(worker.state.free_pages)

    monkeypatch.setattr(worker, "_publish", published)
    other = asyncio.create_task(tokens(worker, greedy("other", PROMPT, None, 200)))
    with worker.session() as session:
        worker.start(session, greedy("gone", PROMPT, None, 200))
        await session.outcomes()
        await until(lambda: worker.state.running == 2)
        held, steps = worker.state.free_pages, len(free)
    await until(lambda: worker.state.free_pages > held)
    # The step that was under way when it closed, and the one that freed.
    assert any(pages > held for pages in free[steps : steps + 2])
    assert worker.state.running == 1
    other.cancel()
    await until(lambda: worker.state.free_pages == 40)
    assert await asyncio.gather(other, return_exceptions=True)


async def test_an_adapter_is_fetched_once_and_others_do_not_wait_for_it(
    worker: Worker, bench: TestBench, shelf: Shelf, reference: Any
) -> None:
    digest = put(shelf, bench, reference)
    shelf.gate.clear()
    late = [
        asyncio.create_task(tokens(worker, greedy(f"late{n}", PROMPT, digest, 4))) for n in range(3)
    ]
    assert len(await tokens(worker, greedy("base", PROMPT, None, 8))) == 8
    assert not any(task.done() for task in late)
    shelf.gate.set()
    answers = await asyncio.gather(*late)
    assert answers[0] == answers[1] == answers[2]
    assert shelf.fetched == [digest]
    assert worker.state.resident == (digest,)


async def test_a_prefetch_waits_for_what_requests_wait_for_and_serves_those_that_come(
    worker: Worker, bench: TestBench, shelf: Shelf, reference: Any
) -> None:
    digest, other = put(shelf, bench, reference), Digest("0" * 64)
    shelf.gate.clear()
    urgent = asyncio.create_task(tokens(worker, greedy("urgent", PROMPT, other, 4)))
    await until(lambda: shelf.fetched == [other])
    prefetching = asyncio.create_task(worker.prefetch(digest))
    assert len(await tokens(worker, greedy("base", PROMPT, None, 8))) == 8
    assert shelf.fetched == [other]
    shelf.gate.set()
    with pytest.raises(Unavailable):
        await urgent
    await prefetching
    assert worker.holds(digest)
    assert worker.state.resident == ()
    assert len(await tokens(worker, greedy("now", PROMPT, digest, 4))) == 4
    assert shelf.fetched.count(digest) == 1


async def test_a_first_token_limit_ends_a_wait_for_an_adapter_when_nothing_else_runs(
    worker: Worker, bench: TestBench, shelf: Shelf
) -> None:
    # What a first token takes is known once a request has run.
    assert await tokens(worker, greedy("before", PROMPT, None, 8))
    shelf.gate.clear()
    late = replace(greedy("late", PROMPT, Digest("0" * 64), 4), first_token_within=0.1)
    with pytest.raises(TooLate):
        async with asyncio.timeout(5):
            await tokens(worker, late)
    await until(lambda: worker.state.waiting == 0)
    assert worker.state.free_pages == 40


@pytest.mark.parametrize("damage", [None, b"damaged"])
async def test_an_adapter_that_does_not_come_fails_only_those_who_need_it(
    worker: Worker, shelf: Shelf, damage: bytes | None
) -> None:
    missing = Digest("0" * 64)
    if damage is not None:
        shelf.files[missing] = damage

    async def failure(work: Awaitable[Any]) -> ServingError:
        with pytest.raises(ServingError) as caught:
            await work
        return caught.value

    failed, good = await asyncio.gather(
        failure(tokens(worker, greedy("bad", PROMPT, missing, 4))),
        tokens(worker, greedy("good", PROMPT, None, 4)),
    )
    assert isinstance(failed, Unavailable if damage is None else CorruptData)
    assert len(good) == 4
    await until(lambda: worker.state.waiting == worker.state.running == 0)
    assert worker.state.free_pages == 40


async def test_a_request_that_is_refused_says_why(worker: Worker) -> None:
    with pytest.raises(InvalidRequest, match="context"):
        await tokens(worker, greedy("long", PROMPT * 30, None, 4))


async def test_one_id_runs_once(worker: Worker) -> None:
    first = asyncio.create_task(tokens(worker, greedy("same", PROMPT, None, 100)))
    await until(lambda: worker.state.running == 1)
    with pytest.raises(Unavailable, match="this id"):
        await tokens(worker, greedy("same", PROMPT, None, 1))
    assert len(await first) == 100


async def test_what_a_step_made_for_a_caller_comes_together(worker: Worker) -> None:
    names = [str(n) for n in range(4)]
    with worker.session() as session:
        for name in names:
            worker.start(session, greedy(name, PROMPT, None, 6))
        session.finish()
        came = []
        while outcomes := await session.outcomes():
            came.append([str(request) for request, _ in outcomes])
    assert came == [names] * 6


async def test_a_slow_caller_gets_all_in_order_and_a_closed_one_nothing(worker: Worker) -> None:
    with worker.session() as other:
        worker.start(other, greedy("other", PROMPT, None, 200))
        with worker.session() as session:
            worker.start(session, greedy("slow", PROMPT, None, 12))
            await until(lambda: worker.state.running == 1 and not session.running)
            outcomes = await session.outcomes()
        assert [str(request) for request, _ in outcomes] == ["slow"] * 12
        worker.cancel(session, RequestId("other"))  # it is not this caller's
        assert other.running == {"other"}
    await until(lambda: worker.state.running == 0)
    assert worker.state.free_pages == 40


async def test_a_worker_that_drains_ends_its_sessions_with_their_last_request(
    worker: Worker,
) -> None:
    with worker.session() as idle, worker.session() as busy:
        worker.start(busy, greedy("runs", PROMPT, None, 30))
        await busy.outcomes()
        worker.drain()
        assert not await idle.outcomes()
        with pytest.raises(Unavailable, match="stop"):
            worker.start(busy, greedy("new", PROMPT, None, 1))
        assert len([token async for token in drawn_from(busy)]) == 29
    with worker.session() as late:
        assert not await late.outcomes()


def test_every_thread_keeps_the_helpers_it_was_given() -> None:
    """torch gives a thread that has not asked yet what another thread set last."""
    with engine_thread(2) as engine, side_threads() as side:
        engine.submit(int).result()
        assert side.submit(torch.get_num_threads).result() == 1
        assert engine.submit(torch.get_num_threads).result() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no processors of their own")
def test_a_team_that_has_all_processors_is_kept_apart() -> None:
    def affinities() -> list[set[int]]:
        return [os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")]

    usable = processors()
    with engine_thread() as engine:
        engine.submit(keep_apart).result()
        alone = [affinity for affinity in affinities() if len(affinity) == 1]
        assert sorted(min(affinity) for affinity in alone) == usable or len(usable) == 1
    assert os.sched_getaffinity(0) == set(usable), "only the team is kept to its places"


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no processors of their own")
def test_a_team_that_is_smaller_goes_where_there_is_room() -> None:
    with engine_thread(len(processors()) + 1) as engine:
        engine.submit(keep_apart).result()
        assert engine.submit(os.sched_getaffinity, 0).result() == set(processors())
