"""From what a job has learnt to a version in the store: once, however often it is tried."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from services.trainer.config import TrainingConfig
from services.trainer.federation import Federation, TookPart
from services.trainer.jobs import Job, Published

CANDIDATE = "candidate"
JOB_LABEL = "job"
LONGEST_LABEL = 255
MOST_SITE_LABELS = 40  # a version has at most 64
PARTICIPANTS = "participants.json"


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


def participants_of(result: Path) -> list[TookPart]:
    """None, unless it was federated."""
    file = result / PARTICIPANTS
    return [TookPart(**each) for each in json.loads(file.read_text())] if file.exists() else []


async def publish(store: Store, job: Job, result: Path) -> Published:
    """Raises ServingError. A version that this job made before is found again by its label."""
    version = await store.version_of(job)
    if version is None:
        version = await store.upload(job, result, lineage(job, participants_of(result)))
    await store.set_alias(job, CANDIDATE, version)
    return version


def lineage(job: Job, participants: Sequence[TookPart] = ()) -> Provenance:
    """Job, data, method, participants and configuration as labels; what was measured as metrics."""
    facts = {
        JOB_LABEL: job.id,
        "method": job.method,
        "config": _written(job.config),
        "modules": ",".join(job.config.target_modules),
        "participants": str(max(1, len(participants))),
    }
    if job.data is not None:
        facts |= {
            "data": job.data.name,
            "data_sha256": job.data.sha256,
            "data_rows": str(job.data.rows),
        }
    if job.federation is not None:
        facts |= dict(_federated(job.federation, participants))
    labels = {name: value[:LONGEST_LABEL] for name, value in facts.items()}
    metrics = {name: value for name, value in job.metrics.items() if math.isfinite(value)}
    return Provenance(labels, metrics | {"steps": float(job.saved_steps)})


def _federated(
    federation: Federation, participants: Sequence[TookPart]
) -> Iterable[tuple[str, str]]:
    """Of so many that they would not all have a label: one fingerprint of all."""
    yield "federated_method", federation.method
    yield "federated_config", _written(federation)
    yield "rounds", str(federation.rounds)
    yield "sites", ",".join(each.name for each in participants)
    yield "data_rows", str(sum(each.rows for each in participants))
    if len(participants) <= MOST_SITE_LABELS:
        yield from ((f"data_sha256.{each.name}", each.data_sha256) for each in participants)
    else:
        whole = "".join(f"{each.name} {each.data_sha256}\n" for each in participants)
        yield "data_sha256", hashlib.sha256(whole.encode()).hexdigest()


def _written(config: TrainingConfig | Federation) -> str:
    """Every number that decides the result and is not 0."""
    numbers = {
        name: value
        for name, value in asdict(config).items()
        if value and isinstance(value, int | float) and name != "checkpoint_steps"
    }
    return " ".join(f"{name}={value}" for name, value in numbers.items())
