"""Training jobs: what is asked for, how far they have come, and what may be done with them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.core.errors import FailedPrecondition, FieldViolation, InvalidRequest
from services.core.types import Digest, Fingerprint, TenantId
from services.trainer.config import TrainingConfig
from services.trainer.federation import Federation

LORA, FEDERATED = "lora", "federated"
METHODS = frozenset({LORA, FEDERATED})

MOST_REQUEST_ID = 64

_ADAPTER = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class JobState(Enum):
    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self in _OVER


_OVER = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class DataKind(Enum):
    """How a line is read; see trainer_service.proto."""

    CHAT = "chat"
    INSTRUCTION = "instruction"
    COMPLETION = "completion"
    CLASSIFICATION = "classification"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class DataSet:
    """`name`: of the file, for messages."""

    sha256: str
    name: str
    size_bytes: int
    rows: int
    kind: DataKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A job as a caller asks for it. Of a federated one `data_sha256` is empty."""

    tenant: TenantId
    adapter: str
    base_model: str
    data_sha256: str
    method: str
    config: TrainingConfig
    created_by: str
    request_id: str = ""
    federation: Federation | None = None

    def check(self) -> None:
        """Raises InvalidRequest with everything that is wrong."""
        wrong = []
        if not _ADAPTER.fullmatch(self.adapter):
            wrong.append(
                FieldViolation(
                    "adapter", "1 to 63 of a-z, 0-9, -, _ and ., starting with a letter or digit"
                )
            )
        if self.method not in METHODS:
            wrong.append(FieldViolation("method", f"must be one of {', '.join(sorted(METHODS))}"))
        wrong += self._wrong_data()
        if len(self.request_id) > MOST_REQUEST_ID:
            wrong.append(FieldViolation("request_id", f"at most {MOST_REQUEST_ID} characters"))
        if wrong:
            raise InvalidRequest(wrong)

    def _wrong_data(self) -> list[FieldViolation]:
        if self.method == FEDERATED:
            if self.data_sha256:
                return [FieldViolation("data_sha256", "participants have a federated job's data")]
            if self.federation is None:
                return [FieldViolation("federated", "says who takes part in a federated job")]
            return []
        if self.federation is not None:
            return [FieldViolation("federated", f"does not go with the method {self.method!r}")]
        if not is_sha256(self.data_sha256):
            return [FieldViolation("data_sha256", "must be 64 hexadecimal digits")]
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`term` counts who took it: whoever took it before writes nothing any more. What it has
    learnt until `checkpoint` is safe. The steps of a federated one, which has no data here, are
    rounds."""

    number: int
    id: str
    tenant: TenantId
    adapter: str
    base_model: str
    base_fingerprint: Fingerprint
    data: DataSet | None
    method: str
    config: TrainingConfig
    created_by: str
    request_id: str
    state: JobState = JobState.QUEUED
    term: int = 0
    checkpoint: str = ""
    saved_steps: int = 0
    total_steps: int = 0
    crashes: int = 0  # since the last checkpoint
    error: str = ""
    version: int = 0
    digest: Digest | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    created_us: int = 0
    started_us: int = 0
    ended_us: int = 0
    federation: Federation | None = None

    @property
    def lease(self) -> "Lease":
        return Lease(self.id, self.term)

    def require_cancellable(self) -> None:
        """Raises FailedPrecondition."""
        if self.state is JobState.PUBLISHING:
            raise FailedPrecondition("it is trained, and its version is on its way to the store")
        if self.state.is_over:
            raise FailedPrecondition(f"the job has {self.state.value} already")


@dataclass(frozen=True, slots=True)
class Point:
    """What one step showed."""

    step: int
    loss: float
    validation_loss: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file in the job's folder, complete and on disk."""

    name: str
    steps: int
    total_steps: int


@dataclass(frozen=True, slots=True)
class Lease:
    """One taking of a job. What its holder writes is refused once somebody took the job again, or
    cancelled it."""

    job: str
    term: int


class LeaseLost(Exception):
    """The job is another's now, or was cancelled."""


@dataclass(frozen=True, slots=True)
class Published:
    """The version that came of a job."""

    number: int
    digest: Digest


def is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None
