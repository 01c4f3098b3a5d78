"""Two workers of real processes: one is killed, or hangs, and no stream notices."""

import asyncio
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.failures_checks import all_whole, charged, exact
from bench.failures_fleet import Fleet, FleetWorld, Member, gateway_at, saved_model, worker_at
from bench.failures_load import Callers, Stream, drawn_wishes
from bench.soak_world import MODEL
from services.cli.suite import free_addresses
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
    wishes = drawn_wishes(world.models, each=STREAMS // 4, vocabulary=VOCABULARY, tokens=(200, 300))
    callers = Callers([world.suite.addresses.gateway], world.keys)
    await callers.once(wishes, at_once=STREAMS)
    expected = {stream.wish: stream.tokens for stream in callers.streams}
    again = Callers([world.suite.addresses.gateway], world.keys)
    running = asyncio.create_task(again.once(wishes, at_once=STREAMS))
    moved, name = _moved(world), await _busiest(world, again.streams)
    world.suite.processes[name].send_signal(failure)
    await running
    await asyncio.gather(callers.close(), again.close())
    if failure == signal.SIGKILL:
        world.suite.processes[name].wait()
        await asyncio.to_thread(world.suite.launch, name)
    else:
        world.suite.processes[name].send_signal(signal.SIGCONT)
    assert await asyncio.to_thread(world.at_rest) == []
    streams = [*callers.streams, *again.streams]
    rows = [row for row in world.rows() if row.asked_id in {s.told.id for s in streams}]
    found = [*all_whole(streams), exact(streams, expected), *charged(streams, rows)]
    assert [row for row in found if not row.holds] == []
    assert _moved(world) > moved


async def _busiest(world: FleetWorld, streams: Sequence[Stream]) -> str:
    """Once these run."""
    async with asyncio.timeout(20):
        while len(streams) < STREAMS or min(len(each.tokens) for each in streams) < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    workers = await asyncio.to_thread(world.workers)
    return max(workers, key=lambda worker: worker.report.running_sequences).identity.id


def _moved(world: FleetWorld) -> int:
    """Streams that had begun."""
    log: Path = world.suite.home / "logs" / "gateway.log"
    lines = [json.loads(line) for line in log.read_text().splitlines() if "worker_failed" in line]
    return sum(line["delivered"] > 0 for line in lines)
