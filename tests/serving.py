"""A worker that serves the real model over real gRPC, and a gateway's line to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as rpc
from services.cli.suite import free_addresses
from services.core.errors import Unavailable
from services.core.types import Digest, RequestId, SamplingParams, WorkerId
from services.gateway.course import Job
from services.gateway.worker_line import WorkerLine
from services.gateway.worker_room import WorkerIdentity
from services.gateway.workers import Workers
from services.gpu_worker.clients import PeerClient
from services.gpu_worker.engine.host_cache import HostCache
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.handover import Handover
from services.gpu_worker.model.loading import LoadedModel
from services.gpu_worker.servicer import GpuWorkerServicer
from services.gpu_worker.worker import Worker
from services.runtime.access import GPU_WORKER, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.server import Server
from tests.engines import RecordingRunner, TestBench
from tests.references import smollm

TOKEN = "t" * 40
PROMPT = tuple(range(2, 12))
MOST_SEQUENCES = 6
PAGES = 200


class EmptyStore:
    async def fetch(self, digest: Digest) -> Any:
        raise Unavailable("the store is away")


@dataclass(slots=True)
class Serving:
    """A worker that serves, and a gateway's client of it."""

    model: LoadedModel
    worker: Worker
    server: Server
    workers: Workers
    address: str
    pool: Pool
    runner: RecordingRunner
    handover: Handover

    def job(self, name: str, tokens: int = 5, **more: Any) -> Job:
        card = self.model.card
        rules = {"temperature": 0.0, "ignore_eos": True} | more.pop("rules", {})
        sampling = SamplingParams(max_tokens=tokens, **rules)
        facts: dict[str, Any] = {
            "base_fingerprint": card.fingerprint, "adapter": None, "prompt": PROMPT,
            "cache_salt": name,
        }  # fmt: skip
        return Job(RequestId(name), card.name, sampling=sampling, **facts | more)

    def pieces(self, job: Job, seconds: float = 60) -> Any:
        return self.line.follow(job, seconds)

    @property
    def line(self) -> WorkerLine:
        (line,) = self.lines_of(self.workers)
        return line

    def lines_of(self, workers: Workers) -> list[WorkerLine]:
        """To this worker."""
        lines = workers.lines(self.model.card.fingerprint)
        return [line for line in lines if isinstance(line, WorkerLine)]

    async def tokens(self, job: Job, seconds: float = 60) -> list[int]:
        return [token async for piece in self.pieces(job, seconds) for token in piece.tokens]

    async def runs(self, sequences: int) -> None:
        """Returns once so many do, and none waits."""
        async with asyncio.timeout(10):
            while (self.worker.state.running, self.worker.state.waiting) != (sequences, 0):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def a_worker(*, keeps_prefixes: bool = False) -> AsyncIterator[Serving]:
    model, limits = smollm(), Limits(max_sequences=MOST_SEQUENCES)
    bench = TestBench(model, limits, pages=PAGES, keeps_prefixes=keeps_prefixes)
    worker = Worker(bench.engine, EmptyStore(), HostCache(1 << 20))
    address = free_addresses().worker
    gate = Gate(ServiceToken(TOKEN), scopes_of(GPU_WORKER))
    server = Server(address=address, gate=gate, services=[GPU_WORKER])
    assert bench.engine.carrying is not None
    peers = PeerClient(TOKEN, model.card.fingerprint)
    handover = Handover(worker, bench.engine.carrying, peers)
    servicer = GpuWorkerServicer(worker, model.card, handover)
    rpc.add_GpuWorkerServiceServicer_to_server(servicer, server.grpc)
    turning = asyncio.create_task(worker.run())
    await server.start()
    workers = Workers(TOKEN)
    card = model.card
    workers.name([WorkerIdentity(WorkerId("w"), address, card.name, card.fingerprint)])
    redialing = asyncio.create_task(workers.redial())
    try:
        yield Serving(model, worker, server, workers, address, bench.pool, bench.runner, handover)
    finally:
        redialing.cancel()
        await workers.close()
        await server.drain(0)
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
