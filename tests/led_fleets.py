"""A fleet that a scheduler leads, as operators see it over real gRPC."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from lorikeet.scheduler.v1 import fleet_service_pb2 as pb
from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as rpc
from lorikeet.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as scheduler_rpc
from services.cli.suite import free_addresses
from services.runtime.beside import beside
from services.runtime.client import open_channel
from services.runtime.db import Sessions
from tests.schedulers import OPERATOR, FakeWorker, leading, until

ADAPTER = "a" * 64
CORDON, DRAIN, SERVE = (
    scheduler_pb.WORKER_WISH_CORDON,
    scheduler_pb.WORKER_WISH_DRAIN,
    scheduler_pb.WORKER_WISH_SERVE,
)


class World:
    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self.fleet: Any = rpc.FleetServiceStub(channel)
        self.scheduler: Any = scheduler_rpc.SchedulerServiceStub(channel)

    async def set(self, worker: str, wish: Any) -> scheduler_pb.Worker:
        request = pb.SetWorkerRequest(worker_id=worker, wish=wish)
        response = await self.fleet.SetWorker(request, metadata=OPERATOR)
        worker_: scheduler_pb.Worker = response.worker
        return worker_

    async def states(self) -> dict[str, str]:
        request = scheduler_pb.ListWorkersRequest()
        listed = await self.scheduler.ListWorkers(request, metadata=OPERATOR)
        names = scheduler_pb.WorkerState.Name
        return {
            worker.identity.id: names(worker.state).removeprefix("WORKER_STATE_").lower()
            for worker in listed.workers
        }

    async def saying_that_they_drain(self) -> list[str]:
        request = scheduler_pb.ListWorkersRequest()
        listed = await self.scheduler.ListWorkers(request, metadata=OPERATOR)
        return [worker.identity.id for worker in listed.workers if worker.report.draining]

    async def pin(self, workers: int) -> list[str]:
        request = pb.PinAdapterRequest(adapter_digest=ADAPTER, workers=workers)
        return list((await self.fleet.PinAdapter(request, metadata=OPERATOR)).worker_ids)

    async def migrations(self, **asked: Any) -> Any:
        request = pb.ListMigrationsRequest(**asked)
        return await self.fleet.ListMigrations(request, metadata=OPERATOR)

    async def named(self) -> AsyncIterator[list[str]]:
        request = scheduler_pb.WatchWorkersRequest()
        async for response in self.scheduler.WatchWorkers(request, metadata=OPERATOR):
            yield [worker.id for worker in response.workers]


@asynccontextmanager
async def world(sessions: Sessions, *workers: FakeWorker, **more: Any) -> AsyncIterator[World]:
    """With these workers attached."""
    address = free_addresses().scheduler
    channel = open_channel(address)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(channel.close)
        reign = await stack.enter_async_context(leading(sessions, address, **more))
        attaching = (worker.attached(channel) for worker in workers)
        await stack.enter_async_context(beside(*attaching))
        await until(lambda: len(reign.fleet.live()) == len(workers))
        yield World(address, channel)


def old(count: int) -> FakeWorker:
    return FakeWorker("old", sequences={f"r{number}": 10 + number for number in range(count)})
