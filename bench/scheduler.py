"""A scheduler of 1,000 workers: python -m bench.scheduler

First the planner alone. Then the real process over real gRPC: two processes of workers that only
report, and two gateways here that watch and say what came for 10,000 tenants' adapters. All share
the cores of one machine.
"""

import argparse
import asyncio
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.results import save
from bench.scheduler_adapters import digest, popular
from bench.scheduler_workers import SEATS, TOKENS
from bench.soak_processes import holding
from lorikeet.scheduler.v1 import fleet_service_pb2 as fleet_pb
from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as fleet_rpc
from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.cli.suite import free_addresses
from services.core.reports import SequenceLoad, StepTimes
from services.core.types import Digest, Fingerprint, RequestId, WorkerId
from services.policies.migration.loads import WorkerLoad
from services.policies.migration.rounds import Mover
from services.runtime.beside import beside
from services.runtime.client import bearer
from services.runtime.migrate import migrate

TOKEN = "b" * 40
BASE = "f" * 64
GATEWAYS = 2
ARRIVALS = 10_000  # adapters that something comes for each second, of all gateways
LOOK_SECONDS = 5.0
LARGE = (("grpc.max_receive_message_length", 1 << 28),)


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds of a round's plan, the median and the most of ten; moves of the first."""

    fleet: str
    workers: int
    seconds: float
    most: float
    moves: int


@dataclass(frozen=True, slots=True)
class Load:
    """Of the scheduler's process. `report_age`: seconds, of a worker's last report when it was
    asked for all; `lost`: calls of workers that ended."""

    fleet: str
    workers: int
    mebibytes: int
    processors: float
    report_age_p50: float
    report_age_p99: float
    report_age_most: float
    lost: int
    named: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds until a call was answered, by the wall."""

    fleet: str
    call: str
    times: int
    median: float
    most: float


def loads(workers: int, *, busy: int, others: int) -> Iterator[WorkerLoad]:
    """Every third has `busy` sequences, others `others`; what is beyond SEATS waits."""
    draws = random.Random(1)
    for number in range(workers):
        there = tuple(
            SequenceLoad(
                RequestId(f"{number}-{n}"), Digest(digest(popular(draws))),
                draws.randrange(50, 600), draws.randrange(1, 400), n >= SEATS,
            )
            for n in range(others if number % 3 else busy)
        )  # fmt: skip
        held = sum(each.tokens for each in there if not each.waiting)
        yield WorkerLoad(
            WorkerId(f"w{number:04}"), Fingerprint(BASE), there, SEATS, SEATS * TOKENS,
            SEATS * TOKENS - held, frozenset(each.adapter for each in there if each.adapter),
            StepTimes(25.0, 0.05, 0.05), 200.0,
        )  # fmt: skip


def planned(workers: int) -> Iterator[Plan]:
    for name, busy, others in (
        ("even, full", SEATS, SEATS),
        ("even, with room", SEATS * 3 // 4, SEATS * 3 // 4),
        ("a third twice as busy, others full", 2 * SEATS, SEATS),
        ("a third twice as busy, others with room", 2 * SEATS, SEATS * 3 // 4),
    ):
        fleet, taken, moves = list(loads(workers, busy=busy, others=others)), [], []
        for _ in range(10):
            begun = time.perf_counter()
            moves.append(len(Mover().plan(fleet, 0.0)))
            taken.append(time.perf_counter() - begun)
        yield Plan(name, workers, statistics.median(taken), max(taken), moves[0])


@contextmanager
def started(module: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


@asynccontextmanager
async def fleet(workers: int, *, uneven: bool) -> AsyncIterator["World"]:
    with tempfile.TemporaryDirectory() as folder:
        url, at = f"sqlite+aiosqlite:///{Path(folder) / 'bench.db'}", free_addresses()
        await asyncio.to_thread(migrate, url)
        settings = {
            "SCHEDULER_ADDRESS": at.scheduler,
            "SCHEDULER_DATABASE_URL": url,
            "SCHEDULER_SERVICE_TOKEN": TOKEN,
            "SCHEDULER_LOG_LEVEL": "warning",
        }
        flags, half = ["--uneven"] if uneven else [], workers // 2
        with (
            started("services.scheduler", **settings) as scheduler,
            started("bench.scheduler_workers", at.scheduler, "0", str(half), *flags) as first,
            started(
                "bench.scheduler_workers", at.scheduler, str(half), str(workers), *flags
            ) as second,
        ):
            for each in (first, second):
                assert each.stdin is not None
                each.stdin.write(TOKEN + "\n")
                each.stdin.flush()
            async with grpc.aio.insecure_channel(at.scheduler, options=LARGE) as channel:
                yield World(channel, scheduler.pid, (first, second), workers)


class World:
    def __init__(
        self,
        channel: grpc.aio.Channel,
        pid: int,
        workers: Sequence[subprocess.Popen[str]],
        count: int,
    ) -> None:
        self.scheduler = rpc.SchedulerServiceStub(channel)
        self.operator = fleet_rpc.FleetServiceStub(channel)
        self.pid = pid
        self.named = [0] * GATEWAYS
        self.fewest = count
        self._workers = workers
        self._count = count
        self.taken: dict[str, list[float]] = {}
        self.ages: list[float] = []

    async def watch(self, gateway: int) -> None:
        while True:
            try:
                request = pb.WatchWorkersRequest()
                async for response in self.scheduler.WatchWorkers(request, metadata=bearer(TOKEN)):
                    self.named[gateway] = len(response.workers)
                    self.fewest = min(self.fewest, *self.named)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)

    async def report_demand(self, gateway: int) -> None:
        draws = random.Random(gateway)
        while True:
            begun = time.perf_counter()
            arrived: dict[str, int] = {}
            while len(arrived) < ARRIVALS // GATEWAYS:
                adapter = digest(popular(draws))
                arrived[adapter] = arrived.get(adapter, 0) + 1
            request = pb.ReportDemandRequest(
                gateway=f"g{gateway}", base_fingerprint=BASE, base_model="base", arrived=arrived
            )
            await self._timed("ReportDemand", self.scheduler.ReportDemand, request)
            await asyncio.sleep(max(0.0, 1.0 - (time.perf_counter() - begun)))

    async def joined(self) -> float:
        """Seconds until every worker was named to every gateway."""
        begun = time.perf_counter()
        async with asyncio.timeout(90):
            while min(self.named) < self._count:  # noqa: ASYNC110  # the state is plain data
                await asyncio.sleep(0.1)
        self.fewest = self._count
        return time.perf_counter() - begun

    async def look(self, seconds: float) -> float:
        """Asks what operators ask, for so long; the scheduler's share of a processor."""
        draws, begun, used = random.Random(0), time.perf_counter(), _processor_seconds(self.pid)
        while time.perf_counter() - begun < seconds:
            operator, scheduler = self.operator, self.scheduler
            request = fleet_pb.RebalanceRequest(dry_run=True)
            await self._timed("Rebalance, dry run", operator.Rebalance, request)
            why = fleet_pb.ExplainPlacementRequest(adapter_digest=digest(popular(draws)))
            await self._timed("ExplainPlacement", operator.ExplainPlacement, why)
            listed = await self._timed(
                "ListWorkers", scheduler.ListWorkers, pb.ListWorkersRequest()
            )
            self.ages += [each.report_age_milliseconds / 1000 for each in listed.workers]
            await asyncio.sleep(LOOK_SECONDS)
        return (_processor_seconds(self.pid) - used) / (time.perf_counter() - begun)

    def lost(self) -> int:
        """Ends the workers."""
        for process in self._workers:
            process.send_signal(signal.SIGTERM)
        return sum(int(process.communicate()[0].split()[-1]) for process in self._workers)

    async def _timed(self, name: str, call: Any, request: Any) -> Any:
        begun = time.perf_counter()
        response = await call(request, metadata=bearer(TOKEN), timeout=30)
        self.taken.setdefault(name, []).append(time.perf_counter() - begun)
        return response


async def measured(name: str, workers: int, seconds: float, *, uneven: bool) -> dict[str, Any]:
    async with fleet(workers, uneven=uneven) as world:
        async with beside(*(world.watch(gateway) for gateway in range(GATEWAYS))):
            joined = await world.joined()
            print(f"{name}: {workers} workers joined within {joined:.1f} s", flush=True)
            async with beside(*(world.report_demand(gateway) for gateway in range(GATEWAYS))):
                share = await world.look(seconds)
        mebibytes, ages = holding(world.pid).mebibytes, statistics.quantiles(world.ages, n=100)
        load = Load(
            name, workers, mebibytes, share, ages[49], ages[98], max(world.ages), world.lost(),
            world.fewest,
        )  # fmt: skip
    answers = [
        Answer(name, call, len(taken), statistics.median(taken), max(taken))
        for call, taken in sorted(world.taken.items())
    ]
    for row in (load, *answers):
        print(row, flush=True)
    return {"load": [asdict(load)], "answers": [asdict(answer) for answer in answers]}


def _processor_seconds(pid: int) -> float:
    fields = (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.scheduler")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--even", action="store_true", help="workers are equally busy")
    asked = parser.parse_args()
    plans = list(planned(asked.workers))
    for plan in plans:
        print(plan, flush=True)
    name = "even" if asked.even else "a third twice as busy"
    if not math.isfinite(asked.seconds) or asked.seconds <= 0:
        parser.error("--seconds must be above 0")
    figures = asyncio.run(measured(name, asked.workers, asked.seconds, uneven=not asked.even))
    save("scheduler", {"plans": [asdict(plan) for plan in plans], **figures})


if __name__ == "__main__":
    main()
