"""What nobody needs any more: files of jobs that are over, and data that nobody asks for."""

import asyncio
import shutil
from pathlib import Path
from typing import Protocol

import structlog

from services.trainer.datasets import DataSets
from services.trainer.jobs import Job

log = structlog.get_logger()

TIDY_SECONDS = 600.0


class UnfinishedJobs(Protocol):
    async def unfinished(self) -> list[Job]: ...


async def tidy(jobs: UnfinishedJobs, folder: Path, data: DataSets, *, kept_seconds: float) -> None:
    """`folder`: of all jobs."""
    there = set(await asyncio.to_thread(_names, folder))  # before asking: a new one is not old
    unfinished = await jobs.unfinished()
    for name in there - {job.id for job in unfinished}:
        await asyncio.to_thread(shutil.rmtree, folder / name, ignore_errors=True)
    needed = {(str(job.tenant), job.data.sha256) for job in unfinished if job.data}
    await asyncio.to_thread(data.remove_old, kept_seconds, needed)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*")]


async def keep_tidy(
    jobs: UnfinishedJobs, folder: Path, data: DataSets, *, kept_seconds: float
) -> None:
    """For good."""
    while True:
        try:
            await tidy(jobs, folder, data, kept_seconds=kept_seconds)
        except Exception:  # the database may be well again the next time
            log.exception("tidying_failed")
        await asyncio.sleep(TIDY_SECONDS)
