"""The gateway's own cost, before a worker that costs nothing: python -m bench.streaming

First tokens: through the gateway and from the worker itself, in turn, one request at a time, of a
worker that takes some time for a prompt, as every worker does: the books are opened meanwhile.
Tokens a second: of many streams, by the time that the gateway's process ran on a core; whatever
else shares the cores, its clients among them, does not count.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.gateway import new_key
from bench.results import save
from bench.streams import follow
from bench.workload import Arrival, prompt
from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as rpc
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2 as worker_pb
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as worker_rpc
from lorikeet.types.v1.generation_pb2 import SamplingParams, TokenIds
from services.cli.connection import Metadata
from services.cli.suite import Suite, embedded_model, free_addresses, only_one
from services.gpu_worker.model.loading import load_model

MODEL = "smollm2-135m-instruct"
PROMPT = prompt(0, 32)
TICKS = os.sysconf("SC_CLK_TCK")


class StubbedSuite(Suite):
    """With bench.stub_worker for a worker."""

    def _spawn(
        self, name: str, module: str, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        module = "bench.stub_worker" if name == "gpu_worker" else module
        return super()._spawn(name, module, environment)


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Medians, in milliseconds."""

    worker_first_token: float
    gateway_first_token: float
    added: float


@dataclass(frozen=True, slots=True)
class Streaming:
    """`per_core`: tokens for each second of the gateway's time on a core. `message`: tokens in
    one."""

    streams: int
    tokens_per_second: float
    tokens_per_core_second: float
    tokens_per_message: float


async def first_token(addresses: tuple[str, str], key: str, token: str, count: int) -> FirstToken:
    """`addresses`: the worker's and the gateway's; `token`: the worker's."""
    fingerprint = load_model(embedded_model()).card.fingerprint
    sampling = SamplingParams(max_tokens=2, temperature=0.0, seed=1)
    direct: list[float] = []
    through: list[float] = []
    async with (
        grpc.aio.insecure_channel(addresses[0]) as worker,
        grpc.aio.insecure_channel(addresses[1]) as gateway,
    ):
        call = worker_rpc.GpuWorkerServiceStub(worker).Run(metadata=_bearer(token))
        stub = rpc.GatewayServiceStub(gateway)
        request = pb.GenerateRequest(model=MODEL, tokens=TokenIds(ids=PROMPT), sampling=sampling)
        await call.read()
        for number in range(count):
            start = worker_pb.Start(
                request_id=str(number), base_fingerprint=fingerprint,
                prompt=PROMPT, sampling=sampling,
            )  # fmt: skip
            begun = time.perf_counter()
            await call.write(worker_pb.RunRequest(start=start))
            await _until(call, bool)
            direct.append(time.perf_counter() - begun)
            await _until(call, lambda pieces: any(piece.finish_reason for piece in pieces))
            begun, first = time.perf_counter(), 0.0
            async for _ in stub.Generate(request, metadata=_bearer(key)):
                first = first or time.perf_counter() - begun
            through.append(first)
        call.cancel()
    ours, theirs = statistics.median(direct) * 1000, statistics.median(through) * 1000
    return FirstToken(ours, theirs, theirs - ours)


async def _until(call: Any, enough: Callable[[Sequence[worker_pb.Piece]], bool]) -> None:
    while not enough((await call.read()).pieces):
        pass


async def streaming(suite: Suite, server: str, key: str, streams: int, tokens: int) -> Streaming:
    messages = 0

    async def ask(number: int, arrival: Arrival) -> AsyncIterator[int]:
        nonlocal messages
        sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        request = pb.GenerateRequest(model=MODEL, tokens=TokenIds(ids=PROMPT), sampling=sampling)
        async for piece in stub.Generate(request, metadata=_bearer(key)):
            messages += 1
            yield len(piece.tokens)

    async with grpc.aio.insecure_channel(server) as channel:
        stub = rpc.GatewayServiceStub(channel)
        pid = suite.processes["gateway"].pid
        before = _seconds_on_a_core(pid)
        arrivals = [Arrival(0.0, PROMPT, tokens, None) for _ in range(streams)]
        timings = await follow(ask, arrivals)
        took = _seconds_on_a_core(pid) - before
        rate = timings.run(arrivals).tokens_per_second
        return Streaming(streams, rate, timings.tokens / took, timings.tokens / messages)


def _seconds_on_a_core(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _bearer(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.streaming")
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--step-seconds", type=float, default=0.01)
    parser.add_argument("--prompt-seconds", type=float, default=0.01)
    parser.add_argument("--requests", type=int, default=500, help="for first tokens")
    asked = parser.parse_args()
    os.environ["LORIKEET_STUB_STEP_SECONDS"] = str(asked.step_seconds)
    os.environ["LORIKEET_STUB_PROMPT_SECONDS"] = str(asked.prompt_seconds)
    with tempfile.TemporaryDirectory() as home, only_one(Path(home)):
        suite = StubbedSuite(Path(home), free_addresses(), embedded_model())
        try:
            profile = suite.start(lambda step: print(step, flush=True))
            key = new_key(profile.server, profile.operator_token)
            many = asyncio.run(streaming(suite, profile.server, key, asked.streams, asked.tokens))
            print(many, flush=True)
            token = json.loads((Path(home) / "secrets.json").read_text())["service_token"]
            addresses = (suite.addresses.worker, profile.server)
            first = asyncio.run(first_token(addresses, key, token, asked.requests))
            print(first, flush=True)
        finally:
            suite.stop()
    save("streaming", {"gateway": [asdict(many) | asdict(first)]})


if __name__ == "__main__":
    main()
