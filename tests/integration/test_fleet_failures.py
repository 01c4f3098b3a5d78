"""Two workers of real processes: one is killed, hangs or is drained, and no stream notices."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.failures_checks import Row, all_whole, charged, exact
from bench.failures_fleet import Fleet, FleetWorld, Member, gateway_at, saved_model, worker_at
from bench.failures_load import Callers, Stream, Wish, drawn_wishes
from bench.soak_world import MODEL
from services.cli.app import app
from services.cli.suite import free_addresses
from services.gpu_worker.model.parallel.group import EXIT_MEMBER_LOST
from tests.integration.conftest import parsed
from tests.tiny_models import VOCABULARY

WORKERS = ("worker-1", "worker-2")
STREAMS = 12


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetWorld]:
    home = tmp_path_factory.mktemp("fleet") / "home"
    (home / "logs").mkdir(parents=True)
    at, more = free_addresses(), free_addresses()
    members = (
        Member("adapter_store", "adapter_store", at.store),
        Member("scheduler", "scheduler", at.scheduler),
        worker_at(WORKERS[0], at.worker),
        worker_at(WORKERS[1], more.worker),
        gateway_at("gateway", at.gateway, at.http),
    )
    fleet = Fleet(home, at, saved_model(home / "model"), memory_mebibytes=64, members=members)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPU_WORKER_MODEL_NAME", MODEL)
        patch.setenv("GPU_WORKER_THREADS", "1")
        try:
            world = FleetWorld.started(fleet)
            world.furnish_fleet(home / "adapters", adapters=4)
            yield world
        finally:
            for process in fleet.processes.values():
                process.send_signal(signal.SIGCONT)
            fleet.stop()


@pytest.mark.parametrize("failure", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
async def test_no_stream_notices_that_its_worker(failure: int, world: FleetWorld) -> None:
    """Whichever of the two it is that most run on."""
    before, again = _callers(world), _callers(world)
    await before.once(_wishes(world), at_once=STREAMS)
    running = asyncio.create_task(again.once(_wishes(world), at_once=STREAMS))
    moved, name = _moved(world), await _busiest(world, again.streams)
    world.suite.processes[name].send_signal(failure)
    await running
    if failure == signal.SIGKILL:
        world.suite.processes[name].wait()
        await asyncio.to_thread(world.suite.launch, name)
    else:
        world.suite.processes[name].send_signal(signal.SIGCONT)
    assert await _wrong(world, before, again) == []
    assert _moved(world) > moved


async def test_no_stream_notices_that_its_worker_is_drained(world: FleetWorld) -> None:
    """It ends by itself, and comes back cordoned, not to drain again."""
    before, again = _callers(world), _callers(world)
    await before.once(_wishes(world), at_once=STREAMS)
    running = asyncio.create_task(again.once(_wishes(world), at_once=STREAMS))
    name = await _busiest(world, again.streams)
    (drained,) = await _lorikeet(world, "workers", "drain", name)
    assert drained["state"] == "WORKER_STATE_DRAINING"
    assert await asyncio.to_thread(world.suite.processes[name].wait, 20) == 0
    assert (await _states(world))[name] == "WORKER_STATE_AWAY"
    await running
    assert await _wrong(world, before, again) == []
    moves = await _lorikeet(world, "migrations", "--worker", name)
    drains = [move for move in moves if move["reason"] == "MIGRATION_REASON_DRAIN"]
    ended = {"MIGRATION_STATE_LEFT", "MIGRATION_STATE_VOID"}  # void: it was done before it could go
    assert "MIGRATION_STATE_LEFT" in {move["state"] for move in drains} <= ended
    await asyncio.to_thread(world.suite.launch, name)
    await _reaches(world, name, "WORKER_STATE_CORDONED")
    await _lorikeet(world, "workers", "uncordon", name)
    await _reaches(world, name, "WORKER_STATE_SERVING")
    (cordoned,) = await _lorikeet(world, "workers", "cordon", name)
    assert cordoned["state"] == "WORKER_STATE_CORDONED"
    await _lorikeet(world, "workers", "uncordon", name)
    assert await _lorikeet(world, "workers", "rebalance", "--dry-run") == []  # nothing runs


async def test_no_stream_notices_that_a_member_of_its_workers_group_is_killed(
    world: FleetWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker ends at once, and says why; its streams go on, with the same tokens, at another
    group. Both workers are groups from here on."""
    monkeypatch.setenv("GPU_WORKER_TENSOR_PARALLEL", "2")
    await asyncio.gather(*(_relaunched(world, name) for name in WORKERS))
    before, again = _callers(world), _callers(world)
    wishes = _wishes(world, tokens=(120, 160))
    await before.once(wishes, at_once=STREAMS)
    running = asyncio.create_task(again.once(wishes, at_once=STREAMS))
    followers = {name: _follower(world.suite.processes[name].pid) for name in WORKERS}
    await _begun(again.streams)
    for follower in followers.values():  # so that no stream ends before it is to be disturbed
        os.kill(follower, signal.SIGSTOP)
    moved, name = _moved(world), await _busiest(world, again.streams)
    worker = world.suite.processes[name]
    os.kill(followers.pop(name), signal.SIGKILL)
    for follower in followers.values():
        os.kill(follower, signal.SIGCONT)
    assert await asyncio.to_thread(worker.wait, 5) == EXIT_MEMBER_LOST
    await running
    (lost,) = _logged(world, name, "group_member_lost")
    assert (lost["member"], lost["of"], lost["code"]) == (1, 2, -signal.SIGKILL)
    await asyncio.to_thread(world.suite.launch, name)
    await _reaches(world, name, "WORKER_STATE_SERVING")
    assert await _wrong(world, before, again) == []
    assert _moved(world) > moved


def test_a_group_ends_with_its_leader(world: FleetWorld) -> None:
    """However that ends, even if a member is stopped. After the test above."""
    lost = [len(_logged(world, name, "group_member_lost")) for name in WORKERS]
    for name, number in zip(WORKERS, (signal.SIGKILL, signal.SIGTERM), strict=True):
        worker = world.suite.processes[name]
        follower = _follower(worker.pid)
        if number == signal.SIGKILL:
            os.kill(follower, signal.SIGSTOP)
        worker.send_signal(number)
        assert worker.wait(20) == (0 if number == signal.SIGTERM else -number)
        deadline = time.monotonic() + 5
        while _command(follower):
            assert time.monotonic() < deadline, "it lives on"
            time.sleep(0.02)
    assert lost == [len(_logged(world, name, "group_member_lost")) for name in WORKERS]


def _follower(worker: int) -> int:
    """The process that is the other member of a worker's group."""
    children = Path(f"/proc/{worker}/task").glob("*/children")
    pids = [int(pid) for file in children for pid in file.read_text().split()]
    (follower,) = [pid for pid in pids if "follower_process" in _command(pid)]
    return follower


def _command(pid: int) -> str:
    """Nothing, of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def _relaunched(world: FleetWorld, name: str) -> None:
    world.suite.processes[name].terminate()
    await asyncio.to_thread(world.suite.processes[name].wait, 20)
    await asyncio.to_thread(world.suite.launch, name)
    await _reaches(world, name, "WORKER_STATE_SERVING")


def _wishes(world: FleetWorld, tokens: tuple[int, int] = (500, 700)) -> list[Wish]:
    """Long enough that most run on when it is known where they do."""
    return drawn_wishes(world.models, each=STREAMS // 4, vocabulary=VOCABULARY, tokens=tokens)


def _callers(world: FleetWorld) -> Callers:
    return Callers([world.suite.addresses.gateway], world.keys)


async def _wrong(world: FleetWorld, undisturbed: Callers, disturbed: Callers) -> list[Row]:
    """Once all is at rest: of their tokens, their ends, and what was charged."""
    await asyncio.gather(undisturbed.close(), disturbed.close())
    assert await asyncio.to_thread(world.at_rest) == []
    expected = {stream.wish: stream.tokens for stream in undisturbed.streams}
    streams = [*undisturbed.streams, *disturbed.streams]
    rows = [row for row in world.rows() if row.asked_id in {s.told.id for s in streams}]
    found = [*all_whole(streams), exact(streams, expected), *charged(streams, rows)]
    return [row for row in found if not row.holds]


async def _lorikeet(world: FleetWorld, *arguments: str) -> Any:
    """What the command says."""
    environment = {
        "LORIKEET_SERVER": world.suite.addresses.gateway,
        "LORIKEET_OPERATOR_TOKEN": world.operator[0][1].removeprefix("Bearer "),
    }
    command = [*arguments, "-o", "json"]
    return parsed(await asyncio.to_thread(CliRunner().invoke, app, command, env=environment))


async def _states(world: FleetWorld) -> dict[str, str]:
    listed = await _lorikeet(world, "workers", "list")
    return {worker["identity"]["id"]: worker["state"] for worker in listed}


async def _reaches(world: FleetWorld, worker: str, state: str) -> None:
    async with asyncio.timeout(20):
        while (await _states(world)).get(worker) != state:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _busiest(world: FleetWorld, streams: Sequence[Stream]) -> str:
    """Once these run, and whoever runs most of them has told so."""
    await _begun(streams)
    async with asyncio.timeout(20):
        while True:
            workers = await asyncio.to_thread(world.workers)
            busiest = max(workers, key=lambda worker: worker.report.running_sequences)
            if busiest.report.running_sequences >= STREAMS // 2:
                return busiest.identity.id
            await asyncio.sleep(0.05)


async def _begun(streams: Sequence[Stream]) -> None:
    async with asyncio.timeout(20):
        while len(streams) < STREAMS or min(len(each.tokens) for each in streams) < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _moved(world: FleetWorld) -> int:
    """Streams that had begun."""
    return sum(line["delivered"] > 0 for line in _logged(world, "gateway", "worker_failed"))


def _logged(world: FleetWorld, name: str, event: str) -> list[Any]:
    log: Path = world.suite.home / "logs" / f"{name}.log"
    return [json.loads(line) for line in log.read_text().splitlines() if f'"{event}"' in line]
