"""What a trainer does with a job when its process, the store or the trainer itself fails."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.core.types import Digest
from services.runtime.db import Base, close_sessions, open_sessions
from services.trainer.config import TrainingConfig
from services.trainer.datasets import DataSets
from services.trainer.jobs import Job, JobState, Lease, LeaseLost, Point, Published, Wish
from services.trainer.metrics import TrainerMetrics
from services.trainer.publication import CANDIDATE
from services.trainer.repository import SqlJobs
from services.trainer.tidying import tidy
from tests.cards import CARD
from tests.federations import federation
from tests.job_world import ACME, VERSION, Shelf, World, working

TRAINS = "tell('Point', step=1, loss=2.5); saved(1); saved(2); result()"
DIES = "sys.exit(1)"
DIES_ONCE = """
if not task["checkpoint"]:
    tell("Point", step=1, loss=2.5)
    saved(1)
    tell("Point", step=2, loss=2.25)
    os.kill(os.getpid(), 9)
assert os.path.exists(os.path.join(task["folder"], task["checkpoint"]))
tell("Point", step=2, loss=2.0)
result()
"""
HANGS = "open(os.path.join(task['folder'], 'pid'), 'w').write(str(os.getpid())); time.sleep(60)"
GONE = "tell('Trained', result={'name': 'gone', 'steps': 4, 'total_steps': 4}, metrics={})"
REFUSES = "tell('Refused', why='d.jsonl:3: is bad')"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    # In memory it would end with its connection, which a cancelled call takes with it.
    sessions = open_sessions(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
    async with sessions.kw["bind"].begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    data = DataSets(tmp_path / "data", most_bytes=1000)
    yield World(SqlJobs(sessions), Shelf(), data, tmp_path)
    await close_sessions(sessions)


async def test_a_job_becomes_a_version_with_its_lineage(world: World) -> None:
    job = await world.job()
    async with working(world.runner(TRAINS)):
        ended = await world.ended(job)
    assert (ended.state, ended.version, ended.digest) == (JobState.SUCCEEDED, 1, VERSION.digest)
    assert await world.jobs.points(job.id, after=0, limit=9) == [Point(1, 2.5)]
    assert world.store.aliases == [CANDIDATE]
    assert world.store.provenance is not None
    labels = world.store.provenance.labels
    assert labels["job"] == job.id
    assert job.data is not None
    assert labels["data_sha256"] == job.data.sha256
    assert (labels["method"], labels["participants"], labels["modules"]) == ("lora", "1", "q")
    assert labels["config"].startswith("rank=8 alpha=16.0 steps=4 learning_rate=0.001 ")
    assert world.store.provenance.metrics == {"loss": 1.5, "steps": 4.0}
    files = {path.name for path in (world.folder / "jobs" / job.id).iterdir()}
    assert files == {"1-2", "result"}  # the checkpoint before is of no use
    await tidy(world.jobs, world.folder / "jobs", world.data, kept_seconds=100)
    assert os.listdir(world.folder / "jobs") == []


async def test_a_process_that_dies_goes_on_from_its_checkpoint(world: World) -> None:
    job = await world.job()
    async with working(world.runner(DIES_ONCE)):
        ended = await world.ended(job)
    assert ended.state is JobState.SUCCEEDED
    assert await world.jobs.points(job.id, after=0, limit=9) == [Point(1, 2.5), Point(2, 2.0)]


async def test_a_process_that_always_dies_is_given_up(world: World) -> None:
    job = await world.job()
    async with working(world.runner(DIES)):
        ended = await world.ended(job)
    assert ended.state is JobState.FAILED
    assert ended.error == "its process died 3 times without getting on"
    assert world.store.uploads == 0


async def test_a_process_that_hangs_is_ended(world: World) -> None:
    job = await world.job()
    async with working(world.runner(HANGS, hung_seconds=0.5, most_crashes=1)):
        ended = await world.ended(job)
    assert ended.state is JobState.FAILED


async def test_what_can_never_go_well_is_said_once(world: World) -> None:
    job = await world.job()
    async with working(world.runner(REFUSES)):
        ended = await world.ended(job)
    assert (ended.state, ended.error) == (JobState.FAILED, "d.jsonl:3: is bad")


async def test_a_cancelled_job_ends_with_its_process(world: World) -> None:
    job = await world.job()
    async with working(runner := world.runner(HANGS)):
        await world.until(job, lambda _: (world.folder / "jobs" / job.id / "pid").exists())
        await world.jobs.cancel(ACME, job.id)
        async with asyncio.timeout(10):
            while runner.underway:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert _is_gone(world, job)
    assert (await world.jobs.get(ACME, job.id)).state is JobState.CANCELLED
    assert world.store.uploads == 0


async def test_a_trainer_that_stops_leaves_its_job_to_others(world: World) -> None:
    job = await world.job()
    async with working(world.runner(HANGS)):
        await world.until(job, lambda _: (world.folder / "jobs" / job.id / "pid").exists())
    assert _is_gone(world, job)
    assert (await world.jobs.get(ACME, job.id)).state is JobState.QUEUED


async def test_the_job_of_a_trainer_that_died_is_taken_over(world: World) -> None:
    job = await world.job()
    dead = await world.jobs.take("dead", {CARD.fingerprint}, {})
    assert dead is not None
    async with working(world.runner(TRAINS)):
        ended = await world.ended(job)
    assert (ended.state, ended.term) == (JobState.SUCCEEDED, 2)
    with pytest.raises(LeaseLost):
        await world.jobs.beat(Lease(job.id, dead.term))


async def test_a_version_is_published_once_however_often_it_is_tried(world: World) -> None:
    """The store was away, and the trainer before died when the version was there."""
    job = await world.job()
    world.store.away = 3
    world.store.versions[job.id] = Published(7, Digest("7" * 64))
    async with working(world.runner(TRAINS)):
        ended = await world.ended(job)
    assert (ended.state, ended.version) == (JobState.SUCCEEDED, 7)
    assert world.store.uploads == 0
    assert world.store.aliases == [CANDIDATE]


@pytest.mark.parametrize(
    "where", ["before the upload", "after the upload", "before the alias", "after the alias"]
)
async def test_one_version_comes_of_a_job_wherever_its_trainer_dies(
    world: World, where: str
) -> None:
    """To the database, which hears no more of it, what breaks is like what dies."""
    job = await world.job()
    world.store.dies = where
    async with working(world.runner(TRAINS, lease_seconds=0.2)):
        ended = await world.ended(job)
    assert (ended.state, ended.term, world.store.uploads) == (JobState.SUCCEEDED, 2, 1)
    assert set(world.store.aliases) == {CANDIDATE}


def test_what_ended_is_counted() -> None:
    metrics, registry = TrainerMetrics(), CollectorRegistry()
    registry.register(metrics)
    metrics.ended(JobState.FAILED)
    ended = "lorikeet_trainer_jobs_ended_total"
    assert registry.get_sample_value(ended, {"state": "failed"}) == 1
    assert registry.get_sample_value(ended, {"state": "succeeded"}) == 0
    assert registry.get_sample_value("lorikeet_trainer_jobs_underway") == 0


async def test_a_result_that_is_gone_is_said_to_be(world: World) -> None:
    job = await world.job()
    async with working(world.runner(TRAINS.replace("result()", GONE))):
        ended = await world.ended(job)
    assert ended.state is JobState.FAILED
    assert "what it has learnt is gone" in ended.error


async def test_what_the_store_refuses_fails_the_job(world: World) -> None:
    job = await world.job()
    world.store.refuses = True
    async with working(world.runner(TRAINS)):
        ended = await world.ended(job)
    assert (ended.state, ended.error) == (JobState.FAILED, "rank: is too large")


def _is_gone(world: World, job: Job) -> bool:
    number = int((world.folder / "jobs" / job.id / "pid").read_text())
    try:  # of a process that has ended its number may be left
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


FEDERATES = """
assert task["meeting"]["address"] == "links:1"
os.makedirs(os.path.join(task["folder"], "result"), exist_ok=True)
with open(os.path.join(task["folder"], "result", "participants.json"), "w") as file:
    json.dump([dict(name=n, data_sha256=n * 32, rows=5, rounds=3) for n in ("ab", "cd")], file)
if not task["checkpoint"]:
    tell("Point", step=1, loss=2.5)
    saved(1)
    import subprocess
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(["sleep", "60"], stdout=quiet, stderr=quiet)
    open(os.path.join(task["folder"], "pid"), "w").write(str(child.pid))
    os.kill(os.getpid(), 9)
result()
"""


async def test_a_federated_job_goes_on_after_its_driver_died_and_says_who_took_part(
    world: World,
) -> None:
    wish = Wish(
        tenant=ACME, adapter="sql", base_model="tiny", data_sha256="", method="federated",
        config=TrainingConfig.asked(target_modules=("q",)), created_by="acme/k1",
        federation=federation(("ab", "cd")),
    )  # fmt: skip
    job = await world.jobs.create(wish, CARD.fingerprint, None, most_unfinished=9)
    assert (job.federation, job.data) == (wish.federation, None)
    async with working(world.runner(DIES, federated=FEDERATES)):
        ended = await world.ended(job)
    assert (ended.state, ended.error) == (JobState.SUCCEEDED, "")
    async with asyncio.timeout(10):
        while not _is_gone(world, job):  # noqa: ASYNC110  # what the driver had started
            await asyncio.sleep(0.01)
    assert world.store.provenance is not None
    labels = world.store.provenance.labels
    assert labels.items() >= {
        "method": "federated", "federated_method": "flexlora", "participants": "2",
        "rounds": "3", "sites": "ab,cd", "data_rows": "10", "data_sha256.ab": "ab" * 32,
        "data_sha256.cd": "cd" * 32,
    }.items()  # fmt: skip
    await tidy(world.jobs, world.folder / "jobs", world.data, kept_seconds=100)
