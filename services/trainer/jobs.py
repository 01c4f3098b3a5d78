"""Training jobs: what is asked for, how far they have come, and what may be done with them."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any

from services.core.errors import FailedPrecondition, FieldViolation, InvalidRequest
from services.core.types import Digest, Fingerprint, TenantId

LORA = "lora"
METHODS = frozenset({LORA})

MOST_RANK = 256
MOST_TOKENS = 1 << 20
MOST_REQUEST_ID = 64

_ADAPTER = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MODULE = re.compile(r"[A-Za-z0-9_]{1,64}")
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
class TrainingConfig:
    """See trainer_service.proto for every field."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    steps: int = 0
    epochs: float = 0.0
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    pack_tokens: int = 1024
    packs_a_step: int = 1
    validation_share: float = 0.0
    evaluate_steps: int = 0
    patience: int = 0
    checkpoint_steps: int = 50
    seed: int = 0
    max_gradient_norm: float = 1.0

    @classmethod
    def asked(cls, **values: Any) -> "TrainingConfig":
        """With what nothing is said of (0 or empty) as it is by default. Raises InvalidRequest."""
        said = {name: value for name, value in values.items() if value}
        if "alpha" not in said:
            said["alpha"] = 2.0 * said.get("rank", cls().rank)
        if "steps" not in said:
            said.setdefault("epochs", 1.0)
        config = replace(cls(), **said)
        config.check()
        return config

    def check(self) -> None:
        """Raises InvalidRequest with everything that is wrong."""
        wrong = [
            FieldViolation(f"config.{name}", "must be a finite number of at least 0")
            for name in (each.name for each in fields(self))
            if isinstance(value := getattr(self, name), int | float)
            and not (math.isfinite(value) and value >= 0)
        ]
        for name, most in (
            ("rank", MOST_RANK), ("pack_tokens", MOST_TOKENS), ("dropout", 0.99),
            ("validation_share", 0.9), ("learning_rate", 1.0),
        ):  # fmt: skip
            if getattr(self, name) > most:
                wrong.append(FieldViolation(f"config.{name}", f"must be at most {most:g}"))
        if self.pack_tokens < 2:
            wrong.append(FieldViolation("config.pack_tokens", "must be at least 2"))
        if self.steps and self.epochs:
            wrong.append(FieldViolation("config.epochs", "does not go with steps"))
        if self.patience and not (self.validation_share and self.evaluate_steps):
            wrong.append(
                FieldViolation("config.patience", "needs validation_share and evaluate_steps")
            )
        wrong += [
            FieldViolation("config.target_modules", f"{name!r} is not a module's short name")
            for name in self.target_modules
            if not _MODULE.fullmatch(name)
        ]
        if wrong:
            raise InvalidRequest(wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A job as a caller asks for it."""

    tenant: TenantId
    adapter: str
    base_model: str
    data_sha256: str
    method: str
    config: TrainingConfig
    created_by: str
    request_id: str = ""

    def check(self) -> None:
        """Raises InvalidRequest with everything that is wrong."""
        wrong = []
        if not _ADAPTER.fullmatch(self.adapter):
            wrong.append(
                FieldViolation(
                    "adapter", "1 to 63 of a-z, 0-9, -, _ and ., starting with a letter or digit"
                )
            )
        if not is_sha256(self.data_sha256):
            wrong.append(FieldViolation("data_sha256", "must be 64 hexadecimal digits"))
        if self.method not in METHODS:
            wrong.append(FieldViolation("method", f"must be one of {', '.join(sorted(METHODS))}"))
        if len(self.request_id) > MOST_REQUEST_ID:
            wrong.append(FieldViolation("request_id", f"at most {MOST_REQUEST_ID} characters"))
        if wrong:
            raise InvalidRequest(wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`term` counts who took it: whoever took it before writes nothing any more. What it has
    learnt until `checkpoint` is safe."""

    number: int
    id: str
    tenant: TenantId
    adapter: str
    base_model: str
    base_fingerprint: Fingerprint
    data: DataSet
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
