"""Moves of requests, as they are kept."""

from dataclasses import dataclass
from enum import Enum

from services.core.types import Digest, RequestId, WorkerId
from services.policies.migration.loads import Reason


class MigrationState(Enum):
    ORDERED = "ordered"
    LEFT = "left"  # its source
    VOID = "void"  # it did not leave, or nobody said that it had


@dataclass(frozen=True, slots=True)
class Migration:
    """`ordered_us`: microseconds since 1970; 0 if it was not."""

    id: str
    request: RequestId
    adapter: Digest | None
    source: WorkerId
    target: WorkerId
    reason: Reason
    gain_seconds: float = 0.0
    state: MigrationState = MigrationState.ORDERED
    tokens: int = 0
    ordered_us: int = 0
