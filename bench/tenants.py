"""Tenants that ask a suite for more than there is, and what each of them got when."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench.upload import change, written_adapter
from bench.workload import prompt
from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as rpc
from lorikeet.gateway.v1 import queue_service_pb2 as queue_pb
from lorikeet.gateway.v1 import queue_service_pb2_grpc as queue_rpc
from lorikeet.gateway.v1 import tenant_service_pb2 as tenants_pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as tenants_rpc
from lorikeet.types.v1.generation_pb2 import SamplingParams, TokenIds
from services.adapter_store.tensors import WEIGHTS
from services.cli.connection import Profile
from services.cli.upload import upload_folder
from services.core.types import Tier
from services.runtime.wire import tier_to_wire

MODEL = "smollm2-135m-instruct"
TOKENS = 32  # of prompt and of output
INPUT, OUTPUT = 1, 2  # what a token of each counts
ADAPTER_BYTES = 10_000_000  # of rank 8


@dataclass(frozen=True, slots=True)
class Tenant:
    """`part`: of what the worker can do, that it asks for, from `since` (of the time) on, in its
    tier of service. Its requests name its adapters in turn; without any, the base model."""

    name: str
    part: float
    since: float = 0.0
    weight: float = 1.0
    adapters: int = 0
    tier: Tier = Tier.DEFAULT


@dataclass(slots=True)
class Client:
    """What a tenant got. Seconds are since the start."""

    name: str
    key: str
    rate: float = 1.0  # requests a second
    since: float = 0.0
    models: Sequence[str] = (MODEL,)
    tier: Tier = Tier.DEFAULT
    served: list[tuple[float, int]] = field(default_factory=list)
    tokens: list[tuple[float, int]] = field(default_factory=list)  # of output
    first_tokens: list[tuple[float, float]] = field(default_factory=list)  # and how long it took
    refused: int = 0

    def service(self, start: float, end: float) -> int:
        return sum(amount for at, amount in self.served if start <= at < end)

    def output_tokens(self, start: float, end: float) -> int:
        return sum(count for at, count in self.tokens if start <= at < end)

    def first_token(self, start: float, end: float) -> float:
        """The median of those that came; all the time if none did."""
        found = [seconds for at, seconds in self.first_tokens if start <= at < end]
        return statistics.median(found) if found else end - start


@dataclass(slots=True)
class Promise:
    """What the gateway itself says of its queue: how far service moved apart, and how far at most
    it is to, by the policy (None if it promises nothing)."""

    gap: float = 0.0
    bound: float | None = None


@contextmanager
def adapter_folder() -> Iterator[Path]:
    """Of one adapter, that is changed a little for each that is wanted."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "adapter"
        written_adapter(folder, ADAPTER_BYTES)
        yield folder


class World:
    """A suite that runs, and its clients."""

    def __init__(self, profile: Profile, adapter: Path) -> None:
        """`adapter`: a folder, as of `adapter_folder`."""
        self._adapter = adapter
        self._server = profile.server
        self._operator = (("authorization", f"Bearer {profile.operator_token}"),)

    def joined(self, tenant: Tenant, *, capacity: float, seconds: float) -> Client:
        """With other adapters than anybody else."""
        with grpc.insecure_channel(self._server) as channel:
            stub = tenants_rpc.TenantServiceStub(channel)
            asked = tenants_pb.CreateTenantRequest(
                name=tenant.name, weight=tenant.weight, highest_tier=tier_to_wire(tenant.tier)
            )
            stub.CreateTenant(asked, metadata=self._operator)
            wanted = tenants_pb.CreateKeyRequest(tenant=tenant.name)
            key = stub.CreateKey(wanted, metadata=self._operator).secret
            names = [f"adapter-{number}" for number in range(tenant.adapters)]
            if names:
                self._upload(channel, key, names)
        models = names or [MODEL]
        rate, since = tenant.part * capacity, tenant.since * seconds
        return Client(tenant.name, key, rate, since, models, tenant.tier)

    async def run(self, clients: Sequence[Client], seconds: float) -> Promise:
        """Everybody asks at its rate; what is not answered at the end is given up."""
        started = time.perf_counter()
        async with grpc.aio.insecure_channel(self._server) as channel:
            promise = Promise()
            watching = asyncio.create_task(self._watch(channel, promise))
            asking = [
                asyncio.create_task(
                    self._ask(channel, client, number, client.since + number / client.rate, started)
                )
                for client in clients
                for number in range(int((seconds - client.since) * client.rate))
            ]
            await asyncio.sleep(seconds)
            for task in (watching, *asking):
                task.cancel()
            outcomes = await asyncio.gather(watching, *asking, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):  # a cancellation is none
                raise outcome
        return promise

    async def capacity(self, client: Client, at_once: int) -> float:
        """Requests a second, with twice as many at once as the worker runs."""
        async with grpc.aio.insecure_channel(self._server) as channel:
            for count in (at_once, 4 * at_once):  # the first is to warm up
                begun = time.perf_counter()
                slots = asyncio.Semaphore(2 * at_once)

                async def one(number: int, slots: asyncio.Semaphore = slots) -> None:
                    async with slots:
                        await self._ask(channel, client, number, 0.0, time.perf_counter())

                await asyncio.gather(*(one(number) for number in range(count)))
        return count / (time.perf_counter() - begun)

    async def _ask(
        self, channel: grpc.aio.Channel, client: Client, number: int, at: float, started: float
    ) -> None:
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        request = pb.GenerateRequest(
            model=client.models[number % len(client.models)],
            tokens=TokenIds(ids=prompt(number, TOKENS)),
            sampling=SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True),
            service_tier=tier_to_wire(client.tier),
        )
        begun, first = time.perf_counter(), True
        metadata = (("authorization", f"Bearer {client.key}"),)
        stub = rpc.GatewayServiceStub(channel)
        try:
            async for piece in stub.Generate(request, metadata=metadata):
                now = time.perf_counter()
                amount = OUTPUT * len(piece.tokens)
                if first:
                    amount += INPUT * TOKENS
                    client.first_tokens.append((now - started, now - begun))
                    first = False
                client.tokens.append((now - started, len(piece.tokens)))
                client.served.append((now - started, amount))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            client.refused += 1

    async def _watch(self, channel: grpc.aio.Channel, promise: Promise) -> None:
        """Every second what the gateway says last; until cancelled."""
        stub = queue_rpc.QueueServiceStub(channel)
        async for answer in stub.WatchQueue(queue_pb.WatchQueueRequest(), metadata=self._operator):
            for lane in answer.lanes:
                promise.gap = lane.gap
                promise.bound = lane.bound if lane.HasField("bound") else None

    def _upload(self, channel: grpc.Channel, key: str, names: Sequence[str]) -> None:
        who = (("authorization", f"Bearer {key}"),)
        for name in names:
            change(self._adapter / WEIGHTS)
            upload_folder(channel, who, self._adapter, adapter=name)
