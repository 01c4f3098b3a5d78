"""Tenants that want more than there is, on the real suite: python -m bench.fairness

Each policy has a suite of its own, with a worker of few sequences, so that requests wait in the
gateway. Service is counted here, by what the clients get: a token of prompt 1 with the first piece,
a token of output 2. What a tenant asks for is in parts of what the worker can do, which is measured
first. Shares and gaps are of the time in which all tenants have something waiting.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path

import grpc

from bench.results import save
from bench.workload import prompt
from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as rpc
from lorikeet.gateway.v1 import tenant_service_pb2 as tenants_pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as tenants_rpc
from lorikeet.types.v1.generation_pb2 import SamplingParams, TokenIds
from services.cli.suite import Suite, embedded_model, free_addresses, only_one

POLICIES = ("fcfs", "rpm-reject", "lcf", "vtc", "vtc-predict", "vtc-adapter")
SEQUENCES = 8  # that the worker runs at once
TOKENS = 32  # of prompt and of output
WARM_SECONDS = 8.0
INPUT, OUTPUT = 1, 2


@dataclass(slots=True)
class Client:
    """One tenant: when it got how much, and how long its first tokens took."""

    rate: float  # requests a second
    key: str
    served: list[tuple[float, int]] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    tokens: int = 0

    def service(self, start: float, end: float) -> int:
        return sum(amount for at, amount in self.served if start <= at < end)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`shares` of the service in the order of the tenants; `gap` the most that the service of two
    moved apart; first tokens are medians, in seconds, of the last tenant."""

    case: str
    policy: str
    shares: str
    gap: int
    first_token: float
    tokens_per_second: float


class World:
    """A suite with one policy, and its clients."""

    def __init__(self, server: str, operator_token: str, model: str) -> None:
        self._server = server
        self._operator = (("authorization", f"Bearer {operator_token}"),)
        self._model = model

    def client(self, name: str, rate: float) -> Client:
        with grpc.insecure_channel(self._server) as channel:
            stub = tenants_rpc.TenantServiceStub(channel)
            request = tenants_pb.CreateTenantRequest(name=name)
            stub.CreateTenant(request, metadata=self._operator)
            wanted = tenants_pb.CreateKeyRequest(tenant=name)
            return Client(rate, stub.CreateKey(wanted, metadata=self._operator).secret)

    async def run(self, clients: Sequence[Client], seconds: float) -> None:
        """Everybody asks at its rate; what is not answered at the end is given up."""
        started = time.perf_counter()
        async with grpc.aio.insecure_channel(self._server) as channel:
            asking = [
                asyncio.create_task(
                    self._ask(channel, client, number, number / client.rate, started)
                )
                for client in clients
                for number in range(int(seconds * client.rate))
            ]
            await asyncio.sleep(seconds)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def capacity(self, client: Client) -> float:
        """Requests a second, with twice as many at once as the worker runs."""
        async with grpc.aio.insecure_channel(self._server) as channel:
            for count in (SEQUENCES, 10 * SEQUENCES):  # the first is to warm up
                begun = time.perf_counter()
                slots = asyncio.Semaphore(2 * SEQUENCES)

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
            model=self._model,
            tokens=TokenIds(ids=prompt(number, TOKENS)),
            sampling=SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True),
        )
        begun, first = time.perf_counter(), True
        metadata = (("authorization", f"Bearer {client.key}"),)
        stub = rpc.GatewayServiceStub(channel)
        async for piece in stub.Generate(request, metadata=metadata):
            now = time.perf_counter()
            amount = OUTPUT * len(piece.tokens)
            if first:
                amount += INPUT * TOKENS
                client.first_tokens.append(now - begun)
                first = False
            client.tokens += len(piece.tokens)
            client.served.append((now - started, amount))


def measured(case: str, policy: str, clients: Sequence[Client], seconds: float) -> Outcome:
    given = [client.service(WARM_SECONDS, seconds) for client in clients]
    return Outcome(
        case=case,
        policy=policy,
        shares=" ".join(f"{amount / max(1, sum(given)):.3f}" for amount in given),
        gap=max(_moved_apart(*pair, seconds) for pair in combinations(clients, 2)),
        first_token=statistics.median(clients[-1].first_tokens),
        tokens_per_second=sum(client.tokens for client in clients) / seconds,
    )


def _moved_apart(one: Client, other: Client, seconds: float) -> int:
    """The highest less the lowest of the difference of what they got since the warm-up."""
    signed = [(at, amount) for at, amount in one.served] + [(at, -a) for at, a in other.served]
    apart, low, high = 0, 0, 0
    for at, amount in sorted(signed):
        if WARM_SECONDS <= at < seconds:
            apart += amount
            low, high = min(low, apart), max(high, apart)
    return high - low


def run_case(
    case: str, policy: str, parts: Mapping[str, float], seconds: float, **settings: str
) -> Outcome:
    """`parts`: of what the worker can do, that each tenant asks for."""
    with tempfile.TemporaryDirectory() as home, only_one(Path(home)):
        os.environ |= {"GATEWAY_POLICY": policy, **settings}
        suite = Suite(Path(home), free_addresses(), embedded_model(), memory_mebibytes=1024)
        try:
            profile = suite.start(lambda step: None)
            world = World(profile.server, profile.operator_token, "smollm2-135m-instruct")
            capacity = asyncio.run(world.capacity(world.client("probe", 1.0)))
            clients = [world.client(name, part * capacity) for name, part in parts.items()]
            asyncio.run(world.run(clients, seconds))
        finally:
            suite.stop()
            for name in ("GATEWAY_POLICY", *settings):
                del os.environ[name]
    outcome = measured(case, policy, clients, seconds)
    print(outcome, flush=True)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.fairness")
    parser.add_argument("--seconds", type=float, default=45.0)
    asked = parser.parse_args()
    os.environ |= {
        "GPU_WORKER_PREFIX_CACHE": "false",  # the same prompts come again and again
        "GPU_WORKER_LIMITS__MAX_SEQUENCES": str(SEQUENCES),
    }
    rpm = {"GATEWAY_REQUESTS_PER_MINUTE": "100"}
    outcomes = [
        run_case(
            "2x and 1x", policy, {"greedy": 2.0, "other": 1.0}, asked.seconds,
            **(rpm if policy.startswith("rpm") else {}),
        )
        for policy in POLICIES
    ]  # fmt: skip
    outcomes += [
        run_case("flood and 0.2x", policy, {"flood": 3.0, "light": 0.2}, asked.seconds)
        for policy in ("fcfs", "vtc")
    ]
    weights = json.dumps({"a": 1, "b": 2, "c": 3, "d": 4})
    outcomes.append(
        run_case(
            "weights 1:2:3:4", "vtc", dict.fromkeys("abcd", 1.0), asked.seconds,
            GATEWAY_WEIGHTS=weights,
        )
    )  # fmt: skip
    save("fairness", {"outcomes": [asdict(outcome) for outcome in outcomes]})


if __name__ == "__main__":
    main()
