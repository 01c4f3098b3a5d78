"""Slots for adapters in a replica: a request whose adapter is not resident waits for its load."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from services.core.types import Digest, RequestId
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest
from services.policies.fairness.admission import Request


@dataclass(frozen=True, slots=True)
class _OnePage:
    """What the engine must know of an adapter to make room for it."""

    pages: int = 1
    size_bytes: int = 0


class Residence:
    """Submits requests to a replica, and loads their adapters into its pool of one-token pages, a
    page each. Loads go on beside steps and beside each other.

    What a submitted request waits for is pinned on its behalf until the engine starts it.
    """

    def __init__(
        self, engine: Engine, pool: Pool, *, slots: int | None, load_seconds: float
    ) -> None:
        """`slots`: adapters that may be resident or loading at once; None: requests are the base
        model's, whatever they say. Raises ValueError."""
        if slots is not None and slots < 1:
            raise ValueError("slots must be at least 1")
        if not 0 <= load_seconds < math.inf:
            raise ValueError("load_seconds must be at least 0")
        self._engine = engine
        self._pool = pool
        self.slots = slots
        self._load_seconds = load_seconds
        self._loads: dict[Digest, float] = {}  # when they end
        self._held: dict[RequestId, Digest] = {}  # of those who were submitted and did not start

    @property
    def adapters(self) -> Collection[Digest]:
        """Resident or loading."""
        return {*self._engine.resident, *self._loads}

    @property
    def num_held(self) -> int:
        """Requests that wait for a load, or for the next step if theirs has ended."""
        return len(self._held)

    @property
    def next_end(self) -> float:
        """When a load ends; infinity if there is none."""
        return min(self._loads.values(), default=math.inf)

    def adapter_of(self, request: Request) -> Digest | None:
        """What must be resident for it to run."""
        return None if self.slots is None else request.adapter

    def can_ever_fit(self, request: EngineRequest) -> bool:
        return _length(request) + (request.adapter is not None) <= self._pool.size

    def seconds_to_load(self, adapter: Digest | None, now: float) -> float:
        """0 if it is there or none is needed; what is left of a load that has begun."""
        if adapter is None or self._pool.residency.holds(adapter):
            return 0.0
        return self._loads.get(adapter, now + self._load_seconds) - now

    def has_slot(self, adapter: Digest | None) -> bool:
        """Whether it is there, or one is free, or somebody who is there may leave."""
        if adapter is None or adapter in self._loads or self._pool.residency.holds(adapter):
            return True
        return not self._is_full() or self._pool.residency.idle_pages > 0

    def tokens(self, request: EngineRequest) -> int:
        """Pages that are not to be had any more when it is submitted: its adapter's is one of them
        unless somebody uses it already."""
        return _length(request) + self._brings(request.adapter)

    def has_room(self, request: EngineRequest) -> bool:
        """Whether it would start in the next step if its adapter were resident."""
        most = request.sampling.max_tokens + self._brings(request.adapter)
        sampling = replace(request.sampling, max_tokens=most)
        return self._engine.has_room(replace(request, adapter=None, sampling=sampling))

    def submit(self, request: EngineRequest, now: float) -> None:
        """One that has a slot and room. Its load begins, if it needs one."""
        self._engine.submit(request, now)
        if request.adapter is None:
            return
        self._held[request.id] = request.adapter
        if self._pool.residency.holds(request.adapter):
            self._pool.residency.pin(request.adapter)
        for adapter in self._engine.wanted():
            self._load(adapter, now)

    def started(self) -> None:
        """A step ran, so that the engine has pinned what it needs."""
        for request, adapter in list(self._held.items()):
            if self._pool.residency.holds(adapter):
                self.cancel(request)

    def cancel(self, request: RequestId) -> None:
        """Nothing is held for it any more; its load goes on."""
        adapter = self._held.pop(request, None)
        if adapter is not None and self._pool.residency.holds(adapter):
            self._pool.residency.unpin(adapter)

    def end_loads(self, now: float) -> bool:
        """What has been loaded is resident; whether anything was."""
        loaded = [adapter for adapter, end in self._loads.items() if end <= now]
        for adapter in loaded:
            del self._loads[adapter]
            self._engine.activate(adapter)
            for awaited in self._held.values():
                if awaited == adapter:
                    self._pool.residency.pin(adapter)
        return bool(loaded)

    def _load(self, adapter: Digest, now: float) -> None:
        residency = self._pool.residency
        if self._is_full():
            leaves = residency.least_worthy()
            assert leaves is not None, "a request was submitted without a slot"
            self._pool.pages.release(residency.drop(leaves))
        copy = self._engine.reserve(adapter, _OnePage())
        assert copy is not None, "there was room for a request and not for its adapter"
        self._loads[adapter] = now + self._load_seconds

    def _is_full(self) -> bool:
        return len(self._engine.resident) + len(self._loads) == self.slots

    def _brings(self, adapter: Digest | None) -> int:
        """Pages: 1 if no one uses its adapter, resident or not."""
        if adapter is None or adapter in self._loads:
            return 0
        residency = self._pool.residency
        return int(not residency.holds(adapter) or residency.is_idle(adapter))


def _length(request: EngineRequest) -> int:
    return len(request.prompt) + request.sampling.max_tokens
