"""What a placement may know: of a worker, and of a request that looks for one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.core.reports import NO_LOAD_TIMES, AdapterPlace, LoadTimes, StepTimes
from services.core.types import Digest, Fingerprint, WorkerId

UNKNOWN_TIMES = StepTimes(base=30.0, sequence=0.05, token=0.05)
"""Of a worker that has not said how long its steps take."""
UNKNOWN_FETCH_MS = 200.0
"""Of an adapter whose size is not known."""
UNKNOWN_EVICTS_MS = 50.0
"""Of one that has not said what it evicts: a quarter of a load, as if one in four came back."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """`most_sequences`, `free_tokens`: 0 and None if it has not said. `queued_tokens`: of prompts
    that it has yet to run. `loading`: milliseconds that are left. `ranks`: of the adapters that run
    there. `evicts_ms`: of having back what its next load evicts. `load_times`: as it has measured
    them. `is_full`: it takes nothing more now, whatever these numbers say."""

    id: WorkerId
    base_model: str
    base_fingerprint: Fingerprint
    running: int
    waiting: int
    free_pages: int
    resident: frozenset[Digest]
    draining: bool
    step_times: StepTimes = UNKNOWN_TIMES
    most_sequences: int = 0
    free_tokens: int | None = None
    queued_tokens: int = 0
    loading: Mapping[Digest, float] = field(default_factory=dict)
    host: frozenset[Digest] = frozenset()
    ranks: Mapping[Digest, int] = field(default_factory=dict)
    evicts_ms: float = 0.0
    is_full: bool = False
    load_times: LoadTimes = NO_LOAD_TIMES

    def place_of(self, adapter: Digest | None) -> AdapterPlace | None:
        """The best that it is at; the base model is always there."""
        if adapter is None or adapter in self.resident:
            return AdapterPlace.DEVICE
        if adapter in self.loading:
            return AdapterPlace.LOADING
        return AdapterPlace.HOST if adapter in self.host else None

    def has_room(self, tokens: int) -> bool:
        """Whether a sequence of so many would start about now. What fits nowhere fits an idle
        worker, which says why it does not."""
        if self.is_full:
            return False
        held = self.running + self.waiting
        if not held:
            return True
        if self.most_sequences and held >= self.most_sequences:
            return False
        return self.free_tokens is None or tokens <= self.free_tokens


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that looks for a worker. `output_tokens`: that it is expected to make. `fetch_ms`,
    `copy_ms`: of its adapter, from the store and from host memory, on workers that have measured
    neither; on others they are of its `adapter_bytes`, 0 if not known. `urgency`: what its own
    milliseconds weigh against those of others, cost.urgency. `needs_room`: it does not wait in a
    worker. `pace_ms`: of the quickest step of the fleet, which the time that its tokens take is
    counted from."""

    base_model: str
    base_fingerprint: Fingerprint | None
    adapter: Digest | None
    excluded: frozenset[WorkerId] = frozenset()
    prompt_tokens: int = 256
    output_tokens: int = 128
    rank: int = 0
    fetch_ms: float = UNKNOWN_FETCH_MS
    copy_ms: float = 10.0
    homes: frozenset[WorkerId] = frozenset()
    urgency: float = 1.0
    needs_room: bool = False
    pace_ms: float = 0.0
    adapter_bytes: int = 0
