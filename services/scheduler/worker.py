"""A worker as the fleet knows it."""

from dataclasses import dataclass
from enum import Enum

from services.core.reports import WorkerReport
from services.core.types import Fingerprint, WorkerId
from services.scheduler.wishes import WorkerState, WorkerWish


class Role(Enum):
    """What of a request a worker runs."""

    ALL = "all"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Identity:
    """Does not change while a worker lives."""

    id: WorkerId
    address: str
    base_model: str
    base_fingerprint: Fingerprint
    device: str
    devices: int = 1
    role: Role = Role.ALL


@dataclass(frozen=True, slots=True)
class Worker:
    """`wish`: None if nothing was said of it."""

    identity: Identity
    report: WorkerReport
    age_seconds: float
    state: WorkerState = WorkerState.SERVING
    wish: WorkerWish | None = None

    @property
    def sequences(self) -> int:
        return self.report.running + self.report.waiting

    @classmethod
    def away(cls, worker: WorkerId, wish: WorkerWish) -> "Worker":
        """Of which only the id is known."""
        nobody = Identity(worker, "", "", Fingerprint(""), "", 0)
        return cls(nobody, WorkerReport(), 0.0, WorkerState.AWAY, wish)
