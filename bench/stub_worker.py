"""A worker that costs next to nothing, so that what is in front of it can be measured: a process
that joins a suite as a GPU worker does and gives every sequence a token a step.

python -m bench.stub_worker, with a worker's settings; LORIKEET_STUB_STEP_SECONDS between steps, and
LORIKEET_STUB_PROMPT_SECONDS for a prompt.
"""

import asyncio
import os
from collections.abc import AsyncIterator

from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2 as pb
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as rpc
from lorikeet.types.v1 import generation_pb2
from services.core.reports import Orders, WorkerReport
from services.core.types import WorkerId
from services.gpu_worker.clients import SchedulerClient, StoreClient, identity_of
from services.gpu_worker.model.loading import load_model
from services.gpu_worker.settings import GpuWorkerSettings
from services.runtime import telemetry
from services.runtime.access import GPU_WORKER, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.beside import beside
from services.runtime.client import open_channel, open_channels
from services.runtime.interceptors import Context
from services.runtime.server import Server, run, stop_signal
from services.runtime.settings import load

SEQUENCES = 4096
TOKENS = 1 << 30
TOKEN = 260  # a word of SmolLM2's


class StubServicer(rpc.GpuWorkerServiceServicer):
    def __init__(self, step_seconds: float, prompt_seconds: float) -> None:
        self._step_seconds = step_seconds
        self._prompt_seconds = prompt_seconds

    async def ReadPrefix(
        self, request: pb.ReadPrefixRequest, context: Context
    ) -> AsyncIterator[pb.ReadPrefixResponse]:
        yield pb.ReadPrefixResponse()

    async def Run(
        self, requests: AsyncIterator[pb.RunRequest], context: Context
    ) -> AsyncIterator[pb.RunResponse]:
        left: dict[str, int] = {}
        started, told = 0, -1
        wanted = asyncio.Event()

        def begin(start: pb.Start) -> None:
            left[start.request_id] = start.sampling.max_tokens
            wanted.set()

        async def obey() -> None:
            nonlocal started
            loop = asyncio.get_running_loop()
            async for request in requests:
                if request.HasField("start"):
                    started += 1
                    loop.call_later(self._prompt_seconds, begin, request.start)
                else:
                    left.pop(request.cancel, None)
                wanted.set()

        async with beside(obey()):
            while True:
                if not left and told == started:
                    wanted.clear()
                    await wanted.wait()
                response = pb.RunResponse(pieces=[_next(name, left) for name in list(left)])
                response.room.sequences = SEQUENCES - len(left)
                response.room.tokens = response.room.pool_tokens = TOKENS
                response.room.output_share = 1.0
                response.room.running = len(left)
                response.room.started = told = started
                yield response
                await asyncio.sleep(self._step_seconds)


def _next(name: str, left: dict[str, int]) -> pb.Piece:
    piece = pb.Piece(request_id=name, tokens=[TOKEN])
    left[name] -= 1
    if not left[name]:
        del left[name]
        piece.finish_reason = generation_pb2.FINISH_REASON_LENGTH
    return piece


class Present:
    """Says that it is there, and does nothing that it is told."""

    leaves = False

    def __init__(self) -> None:
        self.is_sent_away = asyncio.Event()

    def begin(self) -> None:
        pass

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def report(self) -> WorkerReport:
        return WorkerReport()

    def obey(self, orders: Orders) -> None:
        pass


async def main() -> None:
    settings = load(GpuWorkerSettings)
    telemetry.setup("stub_worker", log_format=settings.log_format, level=settings.log_level)
    card = load_model(settings.model_path).card
    token = settings.service_token.get_secret_value()
    store = open_channel(settings.store_address)
    schedulers = open_channels(settings.scheduler_address)
    identity = identity_of(
        card, worker_id=WorkerId("stub"), address=settings.address, device="none"
    )
    server = Server(
        address=settings.address,
        gate=Gate(ServiceToken(token), scopes_of(GPU_WORKER)),
        services=[GPU_WORKER],
    )
    seconds = (float(os.environ[f"LORIKEET_STUB_{what}_SECONDS"]) for what in ("STEP", "PROMPT"))
    servicer = StubServicer(*seconds)
    rpc.add_GpuWorkerServiceServicer_to_server(servicer, server.grpc)
    await StoreClient(store, token, card).register()
    await server.start()
    scheduler = SchedulerClient(schedulers, token, identity, Present())
    async with beside(scheduler.stay_attached()):
        await stop_signal().wait()
        await server.drain(1.0)
    await asyncio.gather(store.close(), schedulers.close())


if __name__ == "__main__":
    run(main)
