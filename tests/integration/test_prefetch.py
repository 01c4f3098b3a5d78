"""A real worker beside a real store: what is promoted is there before anybody asks for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as rpc
from services.cli.suite import embedded_model
from services.core.types import Digest
from services.gpu_worker.clients import StoreDownloads
from services.gpu_worker.engine.host_cache import HostCache
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.model.adapters import AdapterReader, AdapterWeights
from services.gpu_worker.model.fetching import Fetcher
from services.gpu_worker.model.loading import load_model
from services.gpu_worker.prefetch import Prefetcher
from services.gpu_worker.worker import Worker
from services.runtime.client import open_channel
from services.runtime.watch import StoreWatch
from tests.engines import TestBench, greedy
from tests.integration.conftest import EXAMPLES, Running, bearer

TENANT = "warm"
PROMPT = list(range(2, 12))


class Counting:
    """A fetcher, and what it was asked for."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self.fetched: list[Digest] = []

    async def fetch(self, digest: Digest) -> AdapterWeights:
        self.fetched.append(digest)
        return await self._fetcher.fetch(digest)


@dataclass(slots=True)
class Beside:
    """A worker in this process, on the suite's store."""

    worker: Worker
    host: HostCache
    source: Counting


@pytest.fixture(scope="module")
def digests(running: Running, tmp_path_factory: pytest.TempPathFactory) -> tuple[Digest, Digest]:
    """Of the two versions of "style". There are two of "other" as well."""
    running.add_tenant(TENANT)
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("other")
        running.upload_random(TENANT, "other", folder, seed=seed)
    one, two = (running.upload(TENANT, "style", EXAMPLES / name) for name in ("pirate", "json"))
    return Digest(one.digest), Digest(two.digest)


@pytest.fixture
async def beside(running: Running) -> AsyncIterator[Beside]:
    token = json.loads((running.suite.home / "secrets.json").read_text())["service_token"]
    model = load_model(embedded_model())
    bench = TestBench(model, Limits(), pages=2000)
    address = running.suite.addresses.store
    reader = AdapterReader(model, page_tokens=Limits().page_tokens)
    fetcher = Fetcher(StoreDownloads(address, token), reader)
    source, host = Counting(fetcher), HostCache(1 << 30)
    worker = Worker(bench.engine, source, host)
    prefetcher, channel = Prefetcher(worker), open_channel(address)
    begun = asyncio.Event()

    class Begun(Prefetcher):
        async def up_to_date(self) -> None:
            begun.set()

    tasks = [
        asyncio.create_task(worker.run()),
        asyncio.create_task(prefetcher.run()),
        asyncio.create_task(StoreWatch(channel, token).follow([prefetcher, Begun(worker)])),
    ]
    async with asyncio.timeout(30):
        await begun.wait()
    yield Beside(worker, host, source)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(fetcher.close(), channel.close())


async def run(worker: Worker, name: str, digest: Digest) -> None:
    with worker.session() as session:
        worker.start(session, greedy(name, PROMPT, digest, 4))
        session.finish()
        while await session.outcomes():
            pass


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not true():  # noqa: ASYNC110  # the state is plain data
            await asyncio.sleep(0.01)


async def move(running: Running, method: str, request: Any) -> None:
    stub = rpc.AdapterLifecycleServiceStub(running.channel)
    who = bearer(running.keys[TENANT])
    await asyncio.to_thread(getattr(stub, method), request, metadata=who)


async def test_what_is_promoted_is_in_host_memory_before_any_request_asks_for_it(
    running: Running, digests: tuple[Digest, Digest], beside: Beside
) -> None:
    one, two = digests
    await move(running, "Promote", pb.PromoteRequest(adapter="style", version="1"))
    await run(beside.worker, "first", one)
    assert beside.source.fetched == [one]
    await move(running, "Promote", pb.PromoteRequest(adapter="style", version="2"))
    await until(lambda: beside.host.holds(two))
    assert two not in beside.worker.state.resident
    await run(beside.worker, "second", two)
    assert beside.source.fetched == [one, two]


async def test_a_canary_is_fetched_and_what_nobody_uses_here_is_not(
    running: Running, digests: tuple[Digest, Digest], beside: Beside
) -> None:
    one, two = digests
    await move(running, "Promote", pb.PromoteRequest(adapter="style", version="1"))
    await run(beside.worker, "first", one)
    for version in ("1", "2"):
        await move(running, "Promote", pb.PromoteRequest(adapter="other", version=version))
    request = pb.SetCanaryRequest(adapter="style", version="2", percent=5)
    await move(running, "SetCanary", request)
    await until(lambda: beside.host.holds(two))
    assert beside.source.fetched == [one, two]
