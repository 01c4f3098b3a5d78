"""What migration may know of the fleet, and what it decides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.core.reports import NO_SUMS, SequenceLoad, SequenceSums, StepTimes
from services.core.types import Digest, Fingerprint, RequestId, WorkerId


class Reason(Enum):
    BALANCE = "balance"  # its worker had more to do than others
    MEMORY = "memory"  # its worker ran out of pages
    DRAIN = "drain"  # its worker drains
    OPERATOR = "operator"  # somebody asked for it


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """A worker with everything that runs and waits on it. `load_ms`: milliseconds until an adapter
    that is not resident would be; `copy_ms`: until one that is in host memory, `on_host`, would.
    `move_ms`: milliseconds for the keys and values of one token to get there from elsewhere, where
    that is possible. `most_waiting`: sequences that may wait there beyond those that run; where
    requests are bound late, nobody is sent to wait. `most_adapters`: that it can have resident,
    None if only memory says. `adapter_tokens`: of the pool, that one more adapter takes. `others`:
    what runs and waits there beyond `sequences`, none of which may move, with the adapters
    `in_use`."""

    id: WorkerId
    base: Fingerprint
    sequences: tuple[SequenceLoad, ...]
    most_sequences: int
    total_tokens: int  # that its pool can hold
    free_tokens: int
    resident: frozenset[Digest]
    step_times: StepTimes
    load_ms: float
    move_ms: float | None = None
    takes: bool = True  # it is neither cordoned nor draining
    draining: bool = False
    most_waiting: int = 0
    most_adapters: int | None = None
    adapter_tokens: int = 0
    on_host: frozenset[Digest] = frozenset()
    copy_ms: float = 0.0
    others: SequenceSums = NO_SUMS
    in_use: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class PlannedMove:
    request: RequestId
    adapter: Digest | None
    source: WorkerId
    target: WorkerId
    reason: Reason
    gain_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Debts:
    """What fairness owes tenants, in its own service, by their requests: who is owed more moves
    first."""

    owed: Mapping[RequestId, float] = field(default_factory=dict)
