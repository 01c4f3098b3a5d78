"""From what a job has learnt to a version in the store: once, however often it is tried."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from services.trainer.config import TrainingConfig
from services.trainer.jobs import Job, Published

CANDIDATE = "candidate"
JOB_LABEL = "job"
LONGEST_LABEL = 255


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a version comes from, as the store keeps it."""

    labels: Mapping[str, str]
    metrics: Mapping[str, float]


class Store(Protocol):
    async def version_of(self, job: Job) -> Published | None: ...
    async def upload(self, job: Job, folder: Path, provenance: Provenance) -> Published: ...
    async def set_alias(self, job: Job, alias: str, version: Published) -> None:
        """Once for a job: it may have been moved on since."""
        ...


async def publish(store: Store, job: Job, result: Path) -> Published:
    """Raises ServingError. A version that this job made before is found again by its label."""
    version = await store.version_of(job)
    if version is None:
        version = await store.upload(job, result, lineage(job))
    await store.set_alias(job, CANDIDATE, version)
    return version


def lineage(job: Job) -> Provenance:
    """Job, data, method, participants and configuration as labels; what was measured as metrics."""
    facts = {
        JOB_LABEL: job.id,
        "method": job.method,
        "config": _written(job.config),
        "modules": ",".join(job.config.target_modules),
        "participants": "1",
        "data": job.data.name,
        "data_sha256": job.data.sha256,
        "data_rows": str(job.data.rows),
    }
    labels = {name: value[:LONGEST_LABEL] for name, value in facts.items()}
    metrics = {name: value for name, value in job.metrics.items() if math.isfinite(value)}
    return Provenance(labels, metrics | {"steps": float(job.saved_steps)})


def _written(config: TrainingConfig) -> str:
    """Every number that decides the result and is not 0."""
    numbers = {
        name: value
        for name, value in asdict(config).items()
        if value and isinstance(value, int | float) and name != "checkpoint_steps"
    }
    return " ".join(f"{name}={value}" for name, value in numbers.items())
