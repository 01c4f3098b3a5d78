"""Workers that only report: python -m bench.scheduler_workers ADDRESS FIRST END

Each is a connection of its own. It has as many sequences as run at once, every third of them twice
as many if `--uneven`; now and then one ends and one of another adapter comes. The token is read
from stdin; on SIGTERM it prints how many calls ended before that.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import sys
from collections.abc import AsyncIterator, Sequence

import grpc

from bench.scheduler_adapters import digest, popular
from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.runtime.beside import beside
from services.runtime.client import bearer
from services.runtime.server import stop_signal

SEATS = 64
REPORT_SECONDS = 0.5
TURNOVER = 0.5  # of a report, that one sequence is another since the one before
TOKENS = 1200  # of memory, for each seat
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


class ReportingWorker:
    def __init__(self, number: int, *, uneven: bool) -> None:
        self.lost = 0
        self._attached_once = False
        self._name = f"w{number:04}"
        self._random = random.Random(number)
        self._names = itertools.count()
        count = 2 * SEATS if uneven and number % 3 == 0 else SEATS
        self._sequences = [self._sequence(waiting=n >= SEATS) for n in range(count)]
        self._told: set[str] | None = None  # adapters, on this call
        self._takes_changes = False
        self._tells = asyncio.Event()
        self._steps = 0

    async def run(self, address: str, token: str) -> None:
        """Until cancelled."""
        async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as channel:
            while True:
                try:
                    await self._attached(channel, token)
                except grpc.aio.AioRpcError as error:
                    print(f"{self._name}: {error.code().name} {error.details()}", file=sys.stderr)
                self.lost += self._attached_once
                await asyncio.sleep(REPORT_SECONDS)

    async def _attached(self, channel: grpc.aio.Channel, token: str) -> None:
        self._told, self._takes_changes = None, False

        async def requests() -> AsyncIterator[pb.AttachRequest]:
            identity = pb.WorkerIdentity(
                id=self._name, address="127.0.0.1:1", base_model="base", base_fingerprint="f" * 64
            )
            yield pb.AttachRequest(identity=identity, report=self._report())
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REPORT_SECONDS):
                        await self._tells.wait()
                yield pb.AttachRequest(report=self._report())

        stub = rpc.SchedulerServiceStub(channel)
        async for response in stub.Attach(requests(), metadata=bearer(token), wait_for_ready=True):
            self._attached_once = True
            self._takes_changes = response.takes_changes
            if any(order.tell_sequences for order in response.orders):
                self._tells.set()

    def _report(self) -> pb.WorkerReport:
        self._steps += 20
        if self._random.random() < TURNOVER:
            place = self._random.randrange(len(self._sequences))
            self._sequences[place] = self._sequence(waiting=place >= SEATS)
        running, waiting = self._sequences[:SEATS], self._sequences[SEATS:]
        resident = {each.adapter_digest for each in running}
        report = pb.WorkerReport(
            running_sequences=len(running),
            waiting_sequences=len(waiting),
            total_pages=SEATS * TOKENS // 16,
            free_pages=(SEATS * TOKENS - sum(each.tokens for each in running)) // 16,
            page_tokens=16,
            most_sequences=SEATS,
            steps=self._steps,
            sums=pb.SequenceSums(running=_sum(running), waiting=_sum(waiting)),
            step_times=pb.StepTimes(base_ms=25, sequence_ms=0.05, token_ms=0.05),
        )
        self._tell_adapters(report, resident)
        if self._tells.is_set():
            report.sequences.SetInParent()
            report.sequences.sequences.extend(self._sequences)
            self._tells.clear()
        return report

    def _tell_adapters(self, report: pb.WorkerReport, resident: set[str]) -> None:
        told, self._told = self._told, resident
        if told is not None and self._takes_changes:
            report.adapter_changes.SetInParent()
            report.adapter_changes.adapters.extend(_on_device(resident - told))
            report.adapter_changes.gone.extend(told - resident)
            return
        report.resident_adapters.extend(resident)
        if told != resident:
            report.adapters.SetInParent()
            report.adapters.adapters.extend(_on_device(resident))

    def _sequence(self, *, waiting: bool) -> pb.SequenceLoad:
        return pb.SequenceLoad(
            request_id=f"{self._name}-{next(self._names)}",
            adapter_digest=digest(popular(self._random)),
            tokens=self._random.randrange(50, 600),
            tokens_left=self._random.randrange(1, 400),
            waiting=waiting,
        )


def _on_device(adapters: set[str]) -> list[pb.AdapterLoad]:
    place, size = pb.ADAPTER_PLACE_DEVICE, 40 << 20
    return [pb.AdapterLoad(digest=a, place=place, bytes=size, running=1) for a in adapters]


def _sum(sequences: Sequence[pb.SequenceLoad]) -> pb.SequenceSum:
    return pb.SequenceSum(
        count=len(sequences),
        tokens=sum(each.tokens for each in sequences),
        tokens_left=sum(each.tokens_left for each in sequences),
    )


async def attend(workers: Sequence[ReportingWorker], address: str, token: str) -> None:
    """Until a signal comes."""
    stopped = stop_signal()
    async with beside(*(worker.run(address, token) for worker in workers)):
        await stopped.wait()
    print(sum(worker.lost for worker in workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.scheduler_workers")
    parser.add_argument("address")
    parser.add_argument("first", type=int)
    parser.add_argument("end", type=int)
    parser.add_argument("--uneven", action="store_true")
    asked = parser.parse_args()
    numbers = range(asked.first, asked.end)
    workers = [ReportingWorker(number, uneven=asked.uneven) for number in numbers]
    asyncio.run(attend(workers, asked.address, sys.stdin.readline().strip()))


if __name__ == "__main__":
    main()
