"""Two scheduler processes on one PostgreSQL: one leads, and when it is gone the other does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lorikeet.scheduler.v1 import fleet_service_pb2 as fleet_pb
from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as fleet_rpc
from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as rpc
from services.cli.suite import free_addresses
from services.core.types import WorkerId
from services.gateway.workers import Workers
from services.gpu_worker.clients import SchedulerClient
from services.runtime.beside import beside
from services.runtime.client import open_channels
from services.scheduler.lock import open_lock
from tests.databases import migrated
from tests.schedulers import OPERATOR, TOKEN, Attending, until

LEADER_SECONDS = 1.0


class Scheduler:
    """A process."""

    def __init__(self, url: str, address: str, log: Path) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address)
        environment = {
            "SCHEDULER_ADDRESS": address,
            "SCHEDULER_DATABASE_URL": url,
            "SCHEDULER_SERVICE_TOKEN": TOKEN,
            "SCHEDULER_LEADER_SECONDS": str(LEADER_SECONDS),
            "SCHEDULER_LEASE_SECONDS": "1",
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.scheduler"],
                env=os.environ | environment, stdout=output, stderr=output,
            )  # fmt: skip

    def term(self) -> int:
        """0 while it stands by, or is not there."""
        call = rpc.SchedulerServiceStub(self.channel).WatchWorkers(
            pb.WatchWorkersRequest(), metadata=OPERATOR, timeout=2
        )
        try:
            return int(next(iter(call)).term)
        except grpc.RpcError:
            return 0
        finally:
            call.cancel()

    def health(self) -> int:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=2).status)

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with migrated("postgresql", tmp_path_factory.mktemp("db")) as url:
        yield url


class Pair:
    """Whichever of them leads."""

    def __init__(self, url: str, folder: Path) -> None:
        at = free_addresses()
        self._starts = [
            lambda address=address: Scheduler(url, address, folder / "scheduler.log")
            for address in (at.scheduler, at.worker)
        ]
        self._running = [start() for start in self._starts]

    def made_whole(self) -> None:
        for index, scheduler in enumerate(self._running):
            if scheduler.process.poll() is not None:
                scheduler.stop()
                self._running[index] = self._starts[index]()
        soon(lambda: all(_is_up(scheduler) for scheduler in self._running))
        soon(lambda: any(scheduler.term() for scheduler in self._running))

    def by_rank(self) -> tuple[Scheduler, Scheduler]:
        """Who leads, and who stands by."""
        leader, standby = sorted(self._running, key=Scheduler.term, reverse=True)
        return leader, standby

    def stop(self) -> None:
        for scheduler in self._running:
            scheduler.stop()


@pytest.fixture(scope="module")
def started(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(url, tmp_path_factory.mktemp("schedulers"))
    yield pair
    pair.stop()


@pytest.fixture
def pair(started: Pair) -> Pair:
    started.made_whole()
    return started


def _is_up(scheduler: Scheduler) -> bool:
    try:
        return scheduler.health() > 0
    except grpc.RpcError:
        return False


def soon(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def refusals(scheduler: Scheduler) -> set[tuple[str, str]]:
    """Of a method of each service."""
    said = set()
    fleet = fleet_rpc.FleetServiceStub(scheduler.channel)
    stub = rpc.SchedulerServiceStub(scheduler.channel)
    for call in (
        lambda: stub.ListWorkers(pb.ListWorkersRequest(), metadata=OPERATOR, timeout=5),
        lambda: stub.ReportDemand(
            pb.ReportDemandRequest(gateway="g", base_fingerprint="f"), metadata=OPERATOR, timeout=5
        ),
        lambda: list(stub.Attach(iter([pb.AttachRequest()]), metadata=OPERATOR, timeout=5)),
        lambda: fleet.ListPins(fleet_pb.ListPinsRequest(), metadata=OPERATOR, timeout=5),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        error: Any = caught.value
        said.add((error.code().name, error.details().partition(":")[0]))
    return said


def test_a_standby_says_so(pair: Pair) -> None:
    leader, standby = pair.by_rank()
    assert refusals(standby) == {("UNAVAILABLE", "standby")}
    assert leader.health() == health_pb2.HealthCheckResponse.SERVING
    assert standby.health() == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_leader_that_was_stopped_answers_nothing_when_it_goes_on(pair: Pair) -> None:
    leader, standby = pair.by_rank()
    term = leader.term()
    leader.send(signal.SIGSTOP)
    soon(lambda: standby.term() > term)
    assert standby.health() == health_pb2.HealthCheckResponse.SERVING
    leader.send(signal.SIGCONT)
    assert refusals(leader) == {("UNAVAILABLE", "standby")}


async def test_gateways_and_workers_go_on_to_who_leads_after_a_kill(pair: Pair) -> None:
    leader, standby = pair.by_rank()
    channels = open_channels(f"{standby.address},{leader.address}")
    of_worker = open_channels(f"{standby.address}, {leader.address}")
    workers, heard = Workers(TOKEN), list[int]()
    identity = pb.WorkerIdentity(
        id="w", address="127.0.0.1:1", base_model="base", base_fingerprint="f"
    )
    client = SchedulerClient(of_worker, TOKEN, identity, Attending(heard))
    async with beside(workers.follow(channels), client.stay_attached()):
        await until(lambda: WorkerId("w") in workers._named)
        first = heard[-1]
        leader.send(signal.SIGKILL)
        await until(lambda: heard[-1] > first)
        await until(lambda: workers._term > first and WorkerId("w") in workers._named)
    assert heard == sorted(heard)
    for each in (workers, channels, of_worker):
        await each.close()


async def test_of_two_on_one_sqlite_file_one_leads(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'x.db'}"
    one, other = open_lock(url, seconds=1), open_lock(url, seconds=1)
    assert await one.take()
    assert not await other.take()
    await one.release()
    assert await other.take()
    await other.release()
