"""Processes that fail while streams run, and what clients notice: python -m bench.failures PART

A scheduler, a store, a gateway and three workers are real processes; 64 streams over 24 adapters
run greedily, so that their tokens are known from an undisturbed run of the same requests. Parts:

  kills      kill -9 of a worker every ten seconds; it is started again
  hangs      SIGSTOP of a worker every twenty seconds, for eight
  scheduler  kill -9 of the scheduler, for twenty seconds
  gateway    kill -9 of the gateway: clients are told to ask again, and nothing is left at workers
  drain      a worker is asked to stop (SIGTERM) and started again, every ten seconds
  order      a worker is drained by FleetService.SetWorker, and serves again, every ten seconds

Ends with 1 if anything is not as it has to be.
"""

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc

from bench import failures_checks as checks
from bench.failures_checks import Row
from bench.failures_fleet import Fleet, FleetWorld, Member, gateway_at, saved_model, worker_at
from bench.failures_load import Callers, Stream, drawn_wishes
from bench.results import save
from bench.soak_world import MODEL
from lorikeet.scheduler.v1 import fleet_service_pb2 as fleet_pb
from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as fleet_rpc
from lorikeet.scheduler.v1.scheduler_service_pb2 import WorkerWish
from services.cli.suite import free_addresses, interruptible, only_one
from tests.tiny_models import VOCABULARY

STREAMS = 64
ADAPTERS = 24
WISHES = 3  # of each adapter
WORKERS = ("worker-1", "worker-2", "worker-3")
HANG_SECONDS = 8.0
AWAY_SECONDS = 20.0
HANG_STALL_SECONDS = 15.0  # until a worker that hangs is given up, and its streams run elsewhere
TOKENS = (60, 240)  # of a stream

Trouble = Callable[[FleetWorld, Fleet, float], Coroutine[Any, Any, int]]


async def kills(world: FleetWorld, fleet: Fleet, until: float) -> int:
    return await _in_turn(until, 10.0, lambda name: _killed(fleet, name))


async def hangs(world: FleetWorld, fleet: Fleet, until: float) -> int:
    async def hang(name: str) -> None:
        fleet.signal(name, signal.SIGSTOP)
        await asyncio.sleep(HANG_SECONDS)
        fleet.signal(name, signal.SIGCONT)

    return await _in_turn(until, 20.0, hang)


async def scheduler(world: FleetWorld, fleet: Fleet, until: float) -> int:
    await asyncio.sleep(5.0)
    fleet.kill("scheduler")
    await asyncio.sleep(AWAY_SECONDS)
    await asyncio.to_thread(fleet.launch, "scheduler")
    return 1


async def gateway(world: FleetWorld, fleet: Fleet, until: float) -> int:
    return await _in_turn(until, 15.0, lambda name: _killed(fleet, name), names=["gateway"])


async def drain(world: FleetWorld, fleet: Fleet, until: float) -> int:
    async def drained(name: str) -> None:
        fleet.signal(name, signal.SIGTERM)
        code = await asyncio.to_thread(fleet.processes[name].wait)
        if code != 0:
            raise SystemExit(f"{name} ended with {code} when it was asked to stop")
        await asyncio.to_thread(fleet.launch, name)

    return await _in_turn(until, 10.0, drained)


async def order(world: FleetWorld, fleet: Fleet, until: float) -> int:
    """By the operator's word; its process ends once it has nothing left, and is started again."""
    stub = fleet_rpc.FleetServiceStub(world.channel)

    def say(name: str, wish: WorkerWish.ValueType) -> None:
        request = fleet_pb.SetWorkerRequest(worker_id=name, wish=wish)
        stub.SetWorker(request, metadata=world.operator)

    async def drained(name: str) -> None:
        await asyncio.to_thread(say, name, WorkerWish.WORKER_WISH_DRAIN)
        await asyncio.to_thread(fleet.processes[name].wait)
        await asyncio.to_thread(say, name, WorkerWish.WORKER_WISH_SERVE)
        await asyncio.to_thread(fleet.launch, name)

    return await _in_turn(until, 10.0, drained)


PARTS: Mapping[str, Trouble] = {
    trouble.__name__: trouble for trouble in (kills, hangs, scheduler, gateway, drain, order)
}
FIRST_SECONDS = 3.0  # before the first failure


async def _in_turn(
    until: float,
    every: float,
    fail: Callable[[str], Awaitable[None]],
    *,
    names: Sequence[str] = WORKERS,
) -> int:
    """How many failed; none does in the last moments."""
    count, due = 0, time.monotonic() + FIRST_SECONDS
    for name in cycle(names):
        if max(due, time.monotonic()) > until - every / 2:
            return count
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        print(f"{name} fails, {until - time.monotonic():.0f} s left", flush=True)
        await fail(name)
        count, due = count + 1, due + every
    return count


async def _killed(fleet: Fleet, name: str) -> None:
    fleet.kill(name)
    await asyncio.to_thread(fleet.launch, name)


async def run(part: str, world: FleetWorld, fleet: Fleet, asked: argparse.Namespace) -> list[Row]:
    wishes = drawn_wishes(world.models, each=WISHES, vocabulary=VOCABULARY, tokens=TOKENS)
    callers = Callers([fleet.addresses.gateway], world.keys)
    await callers.once(wishes, at_once=STREAMS)
    before = list(callers.streams)
    expected = {stream.wish: stream.tokens for stream in before}
    print(f"undisturbed: {len(before)} streams, p99 stall", end=" ", flush=True)
    print(f"{checks.p99([stream.stall for stream in before]):.3f} s", flush=True)
    until = time.monotonic() + asked.seconds
    failing = asyncio.create_task(PARTS[part](world, fleet, until))
    await callers.again_and_again(wishes, at_once=STREAMS, until=until)
    failures = await failing
    await callers.close()
    streams = callers.streams[len(before) :]
    rest = await asyncio.to_thread(world.at_rest)
    ledger = await asyncio.to_thread(lambda: (world.rows(), world.sums()))
    most = HANG_STALL_SECONDS if part == "hangs" else checks.STALL_SECONDS
    return [
        checks.at_least("processes that failed", failures, 1),
        *checks.all_whole(before),
        *_completed(part, streams),
        checks.exact(streams, expected),
        *checks.stalls(streams, most=most),
        *checks.on_the_books(callers.streams, *ledger),
        checks.none("sequences, requests or pages that are left", rest),
    ]


def _completed(part: str, streams: Sequence[Stream]) -> list[Row]:
    """Who loses the gateway has to ask again; nobody else."""
    return checks.ended_or_retryable(streams) if part == "gateway" else checks.all_whole(streams)


def members(at: Sequence[str]) -> tuple[Member, ...]:
    """On the addresses of a free suite and two more."""
    http, gateway, store, scheduler, *workers = at
    return (
        Member("adapter_store", "adapter_store", store),
        Member("scheduler", "scheduler", scheduler),
        *(worker_at(name, where) for name, where in zip(WORKERS, workers, strict=True)),
        gateway_at("gateway", gateway, http),
    )


def measured(part: str, asked: argparse.Namespace) -> list[Row]:
    with ExitStack() as stack:
        home = asked.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(only_one(home))
        stack.enter_context(interruptible())
        at, more = free_addresses(), free_addresses()
        where = (at.http, at.gateway, at.store, at.scheduler, at.worker, more.http, more.gateway)
        model = saved_model(home / "model")
        fleet = Fleet(home, at, model, memory_mebibytes=256, members=members(where))
        try:
            world = FleetWorld.started(fleet)
            world.furnish_fleet(home / "adapters", adapters=ADAPTERS)
            return asyncio.run(run(part, world, fleet, asked))
        except grpc.RpcError as error:
            raise SystemExit(f"the suite itself failed: {error}") from error
        finally:
            fleet.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m bench.failures",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--home", type=Path, help="a new folder, to keep the logs in")
    asked = parser.parse_args()
    os.environ |= {
        "GPU_WORKER_MODEL_NAME": MODEL,
        "GPU_WORKER_LIMITS__MAX_SEQUENCES": str(STREAMS),
        "GPU_WORKER_THREADS": "1",  # three workers share the processors
        "GATEWAY_LEASE_SECONDS": "5",  # so that what a gateway leaves is closed while we look
    }
    rows = measured(asked.part, asked)
    print(*rows, sep="\n")
    save(f"failures_{asked.part}", {"claims": [asdict(row) for row in rows]})
    raise SystemExit(not all(row.holds for row in rows))


if __name__ == "__main__":
    main()
