"""A trainer that does jobs, with processes of a few lines and a store that may fail."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.core.base_model import BaseModel
from services.core.errors import InvalidRequest, Unavailable
from services.core.types import Digest, TenantId
from services.runtime.clock import SystemClock
from services.trainer.bases import Bases
from services.trainer.config import TrainingConfig
from services.trainer.datasets import DataSets
from services.trainer.jobs import Job, JobState, Published, Wish
from services.trainer.publication import Provenance
from services.trainer.repository import SqlJobs
from services.trainer.runner import Pace, Runner
from services.trainer.task import Meeting
from services.trainer.tasks import Tasks
from tests.cards import CARD

ACME = TenantId("acme")
VERSION = Published(1, Digest("d" * 64))
OVER = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)

# What a training process may do, without what makes one slow to start.
SCRIPT = """
import json, os, sys, time
task = json.loads(sys.stdin.readline())
def tell(kind, **facts):
    print(json.dumps({"is": kind, **facts}), flush=True)
def result():
    os.makedirs(os.path.join(task["folder"], "result"), exist_ok=True)
    tell("Trained", result={"name": "result", "steps": 4, "total_steps": 4}, metrics={"loss": 1.5})
def saved(steps):
    name = task["prefix"] + str(steps)
    open(os.path.join(task["folder"], name), "w").close()
    tell("Checkpoint", name=name, steps=steps, total_steps=4)
"""


@dataclass
class Shelf:
    """A store with one base model, that is away as often as it is told to be."""

    away: int = 0
    refuses: bool = False
    dies: str = ""  # where its caller does, once
    versions: dict[str, Published] = field(default_factory=dict)  # by job
    aliases: list[str] = field(default_factory=list)
    uploads: int = 0
    provenance: Provenance | None = None

    async def base_models(self) -> list[BaseModel]:
        return [CARD]

    async def base_model(self, name: str) -> BaseModel:
        return CARD

    async def version_of(self, job: Job) -> Published | None:
        if self.away:
            self.away -= 1
            raise Unavailable("the store is away")
        return self.versions.get(job.id)

    async def upload(self, job: Job, folder: Path, provenance: Provenance) -> Published:
        if self.refuses:
            raise InvalidRequest.of("rank", "is too large")
        self._die("before the upload")
        self.uploads += 1
        self.provenance = provenance
        self.versions[job.id] = VERSION
        self._die("after the upload")
        return VERSION

    async def set_alias(self, job: Job, alias: str, version: Published) -> None:
        self._die("before the alias")
        self.aliases.append(alias)
        self._die("after the alias")

    def _die(self, where: str) -> None:
        if where == self.dies:
            self.dies = ""
            raise RuntimeError(where)


@dataclass
class World:
    jobs: SqlJobs
    store: Shelf
    data: DataSets
    folder: Path

    def runner(self, script: str, *, federated: str = "", **pace: Any) -> Runner:
        quick: dict[str, Any] = {
            "lease_seconds": 0.5, "look_seconds": 0.02, "retry_seconds": 0.02, "hung_seconds": 20.0,
        }  # fmt: skip
        return Runner(
            self.jobs,
            Tasks(
                bases=Bases(self.store, {CARD.fingerprint: Path("nowhere")}),
                data=self.data,
                folder=self.folder / "jobs",
                meeting=Meeting(address="links:1", folder=self.folder, flower=self.folder),
            ),
            store=self.store,
            holder="here",
            clock=SystemClock(),
            pace=Pace(**quick | pace),
            command=(sys.executable, "-c", SCRIPT + script),
            federated_command=(sys.executable, "-c", SCRIPT + federated),
        )

    async def job(self) -> Job:
        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"text": "a"}\n'

        data = await self.data.write(ACME, "d.jsonl", pieces())
        wish = Wish(
            tenant=ACME, adapter="sql", base_model="tiny", data_sha256=data.sha256, method="lora",
            config=TrainingConfig.asked(steps=4, target_modules=("q",)), created_by="acme/k1",
        )  # fmt: skip
        return await self.jobs.create(wish, CARD.fingerprint, data, most_unfinished=9)

    async def ended(self, job: Job) -> Job:
        return await self.until(job, lambda now: now.state in OVER)

    async def until(self, job: Job, true: Callable[[Job], bool]) -> Job:
        async with asyncio.timeout(20):
            while not true(now := await self.jobs.get(job.tenant, job.id)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return now


@asynccontextmanager
async def working(runner: Runner) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each) for each in (runner.watch(), runner.work())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
