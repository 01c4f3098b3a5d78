"""Training jobs in SQL: who may do one, and what stays of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from services.core.errors import FailedPrecondition, NotFound, ResourceExhausted
from services.core.types import Digest, Fingerprint, TenantId
from services.runtime.db import Sessions
from services.trainer.config import TrainingConfig
from services.trainer.jobs import Checkpoint, Job, JobState, LeaseLost, Point, Published, Wish
from services.trainer.repository import SqlJobs
from tests.training import DATA_SET

BASE = Fingerprint("b" * 64)
BASES = {BASE}


@pytest.fixture
async def jobs(sessions: Sessions) -> AsyncIterator[SqlJobs]:
    """None of the tests before is unfinished afterwards."""
    jobs = SqlJobs(sessions)
    yield jobs
    for job in await jobs.unfinished():
        if job.state is JobState.PUBLISHING:
            await jobs.failed(job.lease, "the test is over")
        else:
            await jobs.cancel(job.tenant, job.id)


def wish(tenant: str = "acme", **changes: Any) -> Wish:
    asked = Wish(
        tenant=TenantId(tenant),
        adapter="sql",
        base_model="tiny",
        data_sha256=DATA_SET.sha256,
        method="lora",
        config=TrainingConfig.asked(rank=4, target_modules=("q_proj",), steps=9),
        created_by=f"{tenant}/k1",
    )
    return replace(asked, **changes)


async def made(jobs: SqlJobs, tenant: str = "acme", **changes: Any) -> Job:
    return await jobs.create(wish(tenant, **changes), BASE, DATA_SET, most_unfinished=16)


async def taken(jobs: SqlJobs, holder: str = "here") -> Job:
    job = await jobs.take(holder, BASES, {})
    assert job is not None
    return job


async def test_a_job_is_as_it_was_asked_for(jobs: SqlJobs) -> None:
    job = await made(jobs)
    assert await jobs.get(job.tenant, job.id) == job
    assert (job.state, job.data, job.config) == (JobState.QUEUED, DATA_SET, wish().config)
    with pytest.raises(NotFound):
        await jobs.get(TenantId("umbrella"), job.id)
    with pytest.raises(NotFound):
        await jobs.cancel(TenantId("umbrella"), job.id)


async def test_a_request_that_is_sent_again_makes_no_other_job(jobs: SqlJobs) -> None:
    first, second = await asyncio.gather(*(made(jobs, request_id="once") for _ in range(2)))
    assert first.id == second.id
    other = await made(jobs, "umbrella", request_id="once")
    assert other.id != first.id
    await jobs.cancel(first.tenant, first.id)
    await jobs.cancel(other.tenant, other.id)


async def test_a_tenant_has_so_many_unfinished_jobs(jobs: SqlJobs) -> None:
    job = await made(jobs, request_id="full")
    with pytest.raises(ResourceExhausted):
        await jobs.create(wish(), BASE, DATA_SET, most_unfinished=1)
    again = wish(request_id="full")
    assert (await jobs.create(again, BASE, DATA_SET, most_unfinished=1)).id == job.id
    await jobs.cancel(job.tenant, job.id)
    assert await jobs.create(wish(), BASE, DATA_SET, most_unfinished=1)


async def test_jobs_are_listed_newest_first_and_only_to_their_tenant(jobs: SqlJobs) -> None:
    mine = [await made(jobs, "lister") for _ in range(3)]
    await made(jobs, "umbrella")
    page = await jobs.page(TenantId("lister"), before=None, limit=2)
    assert [job.id for job in page] == [mine[2].id, mine[1].id]
    rest = await jobs.page(TenantId("lister"), before=page[-1].number, limit=2)
    assert [job.id for job in rest] == [mine[0].id]


async def test_each_job_is_taken_once(jobs: SqlJobs) -> None:
    made_ones = {(await made(jobs)).id for _ in range(3)}
    found = await asyncio.gather(*(jobs.take(f"trainer-{n}", BASES, {}) for n in range(5)))
    took = [job for job in found if job is not None]
    assert {job.id for job in took} <= made_ones
    assert len({job.id for job in took}) == len(took)
    while (job := await jobs.take("another", BASES, {})) is not None:
        took.append(job)
    assert sorted(job.id for job in took) == sorted(made_ones)


async def test_a_job_is_for_who_has_its_base_model(jobs: SqlJobs) -> None:
    await made(jobs)
    assert await jobs.take("here", {Fingerprint("c" * 64)}, {}) is None


async def test_who_has_less_under_way_is_next(jobs: SqlJobs) -> None:
    first = await made(jobs)
    await made(jobs)
    other = await made(jobs, "umbrella")
    assert [(await taken(jobs)).id for _ in range(2)] == [first.id, other.id]


async def test_who_was_silent_has_lost_the_job(jobs: SqlJobs) -> None:
    await made(jobs)
    first = await taken(jobs, "first")
    await jobs.save(first.lease, Checkpoint("1-4", 4, 9))
    await jobs.add_points(first.lease, [Point(step, 2.5) for step in (4, 5, 6)])
    silent = await jobs.beats()
    second = await jobs.take("second", BASES, silent)
    assert second is not None
    assert (second.id, second.term, second.crashes) == (first.id, first.term + 1, 1)
    assert (second.checkpoint, second.saved_steps) == ("1-4", 4)
    assert await jobs.points(first.id, after=0, limit=9) == [Point(4, 2.5)]
    version = Published(1, Digest("d" * 64))
    for write in (
        jobs.beat(first.lease),
        jobs.add_points(first.lease, [Point(5, 2.0)]),
        jobs.save(first.lease, Checkpoint("1-8", 8, 9)),
        jobs.crashed(first.lease),
        jobs.trained(first.lease, Checkpoint("1-result", 9, 9), {}),
        jobs.succeeded(first.lease, version),
        jobs.failed(first.lease, "no"),
        jobs.released(first.lease),
    ):
        with pytest.raises(LeaseLost):
            await write
    assert await jobs.get(first.tenant, first.id) == second
    assert await jobs.points(first.id, after=4, limit=9) == []


async def test_who_beats_keeps_the_job(jobs: SqlJobs) -> None:
    await made(jobs)
    job = await taken(jobs)
    silent = await jobs.beats()
    await jobs.beat(job.lease)
    assert await jobs.take("another", BASES, silent) is None


async def test_only_one_takes_what_was_left(jobs: SqlJobs) -> None:
    await made(jobs)
    job = await taken(jobs)
    silent = await jobs.beats()
    found = await asyncio.gather(*(jobs.take(f"heir-{n}", BASES, silent) for n in range(4)))
    assert [heir.term for heir in found if heir is not None] == [job.term + 1]


async def test_a_cancelled_job_is_nobodys(jobs: SqlJobs) -> None:
    job = await made(jobs)
    held = await taken(jobs)
    cancelled = await jobs.cancel(job.tenant, job.id)
    assert cancelled.state is JobState.CANCELLED
    assert cancelled.ended_us
    assert await jobs.cancel(job.tenant, job.id) == cancelled
    with pytest.raises(LeaseLost):
        await jobs.trained(held.lease, Checkpoint("1-result", 9, 9), {})
    assert await jobs.take("here", BASES, {held.id: 1}) is None


async def test_what_is_published_is_not_cancelled(jobs: SqlJobs) -> None:
    job = await made(jobs)
    held = await taken(jobs)
    trained = await jobs.trained(held.lease, Checkpoint("1-result", 9, 9), {"validation_loss": 2.0})
    assert (trained.state, trained.checkpoint) == (JobState.PUBLISHING, "1-result")
    with pytest.raises(FailedPrecondition):
        await jobs.cancel(job.tenant, job.id)
    heir = await jobs.take("heir", BASES, await jobs.beats())
    assert heir is not None
    assert heir.state is JobState.PUBLISHING  # and is not trained again
    await jobs.succeeded(heir.lease, Published(3, Digest("d" * 64)))
    ended = await jobs.get(job.tenant, job.id)
    assert (ended.state, ended.version, ended.digest) == (JobState.SUCCEEDED, 3, "d" * 64)
    assert ended.metrics == {"validation_loss": 2.0}
    with pytest.raises(FailedPrecondition):
        await jobs.cancel(job.tenant, job.id)
    with pytest.raises(LeaseLost):
        await jobs.failed(heir.lease, "after all")


async def test_a_process_that_died_begins_where_it_was_saved(jobs: SqlJobs) -> None:
    await made(jobs)
    job = await taken(jobs)
    await jobs.add_points(job.lease, [Point(step, 2.0) for step in (1, 2, 3)])
    await jobs.save(job.lease, Checkpoint("1-2", 2, 9))
    assert (await jobs.crashed(job.lease)).crashes == 1
    assert (await jobs.crashed(job.lease)).crashes == 2
    assert [point.step for point in await jobs.points(job.id, after=0, limit=9)] == [1, 2]
    await jobs.add_points(job.lease, [Point(3, 1.5, 1.75, 0.5)])
    assert await jobs.points(job.id, after=2, limit=9) == [Point(3, 1.5, 1.75, 0.5)]
    await jobs.save(job.lease, Checkpoint("1-4", 4, 9))
    assert (await jobs.get(job.tenant, job.id)).crashes == 0


async def test_a_job_that_is_released_waits_again(jobs: SqlJobs) -> None:
    job = await made(jobs)
    held = await taken(jobs)
    await jobs.released(held.lease)
    with pytest.raises(LeaseLost):
        await jobs.beat(held.lease)
    again = await taken(jobs, "another")
    assert (again.id, again.term, again.crashes) == (job.id, held.term + 1, 0)
