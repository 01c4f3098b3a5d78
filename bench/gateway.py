"""The engine alone and the whole suite, in turn: python -m bench.gateway

The suite is real processes with SQLite and a folder of blobs; requests come over gRPC from this
process, which takes its share of the same cores.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from bench.engines import drive, prepare, settled_thread
from bench.results import save
from bench.streams import follow
from bench.workload import Arrival, saturated
from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as rpc
from lorikeet.gateway.v1 import tenant_service_pb2 as tenants_pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as tenants_rpc
from lorikeet.types.v1.generation_pb2 import SamplingParams, TokenIds
from services.cli.suite import Suite, embedded_model, free_addresses, only_one
from services.gpu_worker.model.loading import load_model


@dataclass(frozen=True, slots=True)
class Match:
    """Output tokens a second, medians of the repeats; the ratio is the median of theirs."""

    streams: int
    engine: float
    gateway: float
    ratio: float


async def through_gateway(server: str, key: str, model: str, arrivals: list[Arrival]) -> float:
    metadata = (("authorization", f"Bearer {key}"),)
    async with grpc.aio.insecure_channel(server) as channel:
        stub = rpc.GatewayServiceStub(channel)

        async def ask(number: int, arrival: Arrival) -> AsyncIterator[int]:
            request = pb.GenerateRequest(
                model=model,
                tokens=TokenIds(ids=arrival.prompt),
                sampling=SamplingParams(
                    max_tokens=arrival.output_tokens, temperature=0.0, ignore_eos=True
                ),
            )
            async for piece in stub.Generate(request, metadata=metadata):
                yield len(piece.tokens)

        timings = await follow(ask, arrivals)
        return timings.run(arrivals).tokens_per_second


def new_key(server: str, operator_token: str) -> str:
    metadata = (("authorization", f"Bearer {operator_token}"),)
    with grpc.insecure_channel(server) as channel:
        stub = tenants_rpc.TenantServiceStub(channel)
        stub.CreateTenant(tenants_pb.CreateTenantRequest(name="bench"), metadata=metadata)
        request = tenants_pb.CreateKeyRequest(tenant="bench")
        return stub.CreateKey(request, metadata=metadata).secret


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.gateway")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    thread = settled_thread()
    model = thread.submit(load_model, embedded_model()).result()
    engine, _ = thread.submit(prepare, model, []).result()
    arrivals = saturated(asked.streams, 0)
    os.environ["GPU_WORKER_PREFIX_CACHE"] = "false"  # the same prompts come again and again
    alone: list[float] = []
    whole: list[float] = []
    with tempfile.TemporaryDirectory() as home, only_one(Path(home)):
        suite = Suite(Path(home), free_addresses(), embedded_model(), memory_mebibytes=2048)
        try:
            profile = suite.start(lambda step: print(step, flush=True))
            key = new_key(profile.server, profile.operator_token)
            for repeat in range(asked.repeats + 1):
                ours = thread.submit(drive, engine, arrivals, []).result().tokens_per_second
                through = asyncio.run(
                    through_gateway(profile.server, key, model.card.name, arrivals)
                )
                print(f"engine {ours:.1f}  gateway {through:.1f} tokens/s", flush=True)
                if repeat:
                    alone.append(ours)
                    whole.append(through)
        finally:
            suite.stop()
    ratio = statistics.median(b / a for a, b in zip(alone, whole, strict=True))
    match = Match(asked.streams, statistics.median(alone), statistics.median(whole), ratio)
    print(f"through the gateway: x{ratio:.3f} (wanted >= 0.95)")
    save("gateway", {"matches": [asdict(match)]})


if __name__ == "__main__":
    main()
