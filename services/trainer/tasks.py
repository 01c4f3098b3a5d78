"""What the process that does a job is told: where all that it needs lies on this machine."""

from dataclasses import dataclass
from pathlib import Path

from services.core.errors import FailedPrecondition
from services.trainer.bases import Bases
from services.trainer.datasets import DataSets
from services.trainer.federation import Federation
from services.trainer.jobs import Job
from services.trainer.task import FederatedTask, Meeting, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """`folder`: of all jobs, each in one of its own. Without a `meeting` there is no federated
    job."""

    bases: Bases
    data: DataSets
    folder: Path
    device: str = "auto"
    threads: int = 0
    meeting: Meeting | None = None

    def folder_of(self, job: Job) -> Path:
        return self.folder / job.id

    async def of(self, job: Job) -> Task | FederatedTask:
        """Raises ServingError: what it needs is not there, or away."""
        self.folder_of(job).mkdir(parents=True, exist_ok=True)
        if job.federation is not None:
            return await self._federated(job, job.federation)
        assert job.data is not None
        data = await self.data.get(job.tenant, job.data.sha256)
        return Task(
            method=job.method,
            config=job.config,
            base=await self.bases.base(job.base_model, job.base_fingerprint),
            data=self.data.path(job.tenant, data),
            data_name=job.data.name,
            kind=job.data.kind,
            folder=self.folder_of(job),
            prefix=f"{job.term}-",
            checkpoint=job.checkpoint,
            device=self.device,
            threads=self.threads,
        )

    async def _federated(self, job: Job, federation: Federation) -> FederatedTask:
        if self.meeting is None:
            raise FailedPrecondition("this trainer has no place where sites could dial in")
        return FederatedTask(
            config=job.config,
            federation=federation,
            meeting=self.meeting,
            base=await self.bases.base(job.base_model, job.base_fingerprint),
            folder=self.folder_of(job),
            prefix=f"{job.term}-",
            checkpoint=job.checkpoint,
        )
