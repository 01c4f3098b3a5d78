"""The next step: who is admitted, and how many tokens of whom run, within budgets."""

from collections.abc import Collection, Iterator

from services.core.errors import InvalidRequest, ResourceExhausted, ServingError, Unavailable
from services.core.reports import SequenceLoad
from services.core.types import Digest, RequestId, Room
from services.gpu_worker.engine.lengths import Lengths
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.plan import Slice, StepPlan
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.punctuality import Punctuality
from services.gpu_worker.engine.sequence import EngineRequest, Sequence
from services.policies.first_token import Holder

SOON = 16  # one of so many that run is expected to end before one that is asked for now is here


class Batcher:
    """Admits by the pages that requests are expected to need; the youngest gives way if it was
    wrong, and goes on later from the tokens it has (vLLM's recomputation, SOSP'23, section 4.5).
    """

    def __init__(self, *, limits: Limits, pool: Pool, context_tokens: int) -> None:
        self._limits = limits
        self._pool = pool
        self._context_tokens = context_tokens
        self._waiting: dict[RequestId, Sequence] = {}
        self._running: dict[RequestId, Sequence] = {}  # the oldest first
        self._lengths = Lengths(context_tokens)
        self._rejected: list[tuple[RequestId, ServingError]] = []
        self._step = 0
        self._now = 0.0
        self._only: Collection[RequestId] | None = None  # of this step
        self._punctuality = Punctuality(limits.max_step_tokens, limits.first_token_seconds)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def submit(self, request: EngineRequest, now: float = 0.0) -> None:
        """Raises InvalidRequest, ResourceExhausted (never fits) or Unavailable (queue full)."""
        if len(request.prompt) >= self._context_tokens:
            raise InvalidRequest.of(
                "prompt", f"must be shorter than the context of {self._context_tokens} tokens"
            )
        sequence = Sequence(request, arrived=self._step, arrived_at=now)
        if len(sequence.tokens) >= self.end_of(sequence):
            raise InvalidRequest.of("delivered", "leaves nothing to generate")
        if self._pool.pages_for(self.end_of(sequence)) > self._most_for(sequence):
            raise ResourceExhausted("the request needs more memory than the worker has")
        if len(self._waiting) >= self._limits.max_waiting:
            raise Unavailable("too many requests wait here")
        self._waiting[request.id] = sequence

    def has_room(self, request: EngineRequest) -> bool:
        """Whether it would start in the next step, behind all who wait already."""
        sequence, limits = Sequence(request, arrived=self._step), self._limits
        ahead = [*self._running.values(), *self._waiting.values()]
        if len(ahead) >= limits.max_sequences or len(self._waiting) >= limits.max_waiting:
            return False
        if not self._is_resident(sequence) or not self._can_ever_fit(sequence):
            return False
        if self._is_held_back(sequence, ahead):
            return False
        room = self._room_for(sequence, *self._waiting.values())
        return self._need(sequence) + self._promised_to(ahead) <= room

    def room(self) -> Room:
        """For those who start no more than there is room for: so many as could run, and the few
        that take the places of those that end meanwhile."""
        running, waiting = len(self._running), len(self._waiting)
        ahead = [*self._running.values(), *self._waiting.values()]
        pages = self._room_for(*self._waiting.values()) - self._promised_to(ahead)
        soon = max(1, running // SOON)
        return Room(
            sequences=max(0, self._limits.max_sequences + soon - running - waiting),
            tokens=max(0, pages) * self._pool.page_tokens,
            output_share=self._lengths.share,
            running=running,
            waiting=waiting,
            pool_tokens=self._pool.size * self._pool.page_tokens,
        )

    def cancel(self, request: RequestId) -> None:
        """Frees what the request holds; a request that is not here is no error."""
        if request in self._waiting:
            self._punctuality.forget(self._waiting.pop(request))
        if request in self._running:
            self._stop(self._running[request])

    def find(self, request: RequestId) -> Sequence | None:
        """That waits or runs."""
        return self._running.get(request) or self._waiting.get(request)

    def loads(self) -> list[SequenceLoad]:
        """What runs, the oldest first, and what waits."""
        return [
            SequenceLoad(
                request=sequence.request.id,
                adapter=sequence.request.adapter,
                tokens=len(sequence.tokens),
                tokens_left=self._lengths.steps_left(sequence),
                waiting=sequence.request.id in self._waiting,
            )
            for sequence in (*self._running.values(), *self._waiting.values())
        ]

    def retire(self, sequence: Sequence) -> None:
        """A sequence that has ended; others are expected to be as long."""
        self._lengths.ended(sequence)
        self._stop(sequence)

    def wanted(self) -> set[Digest]:
        """Adapters that requests wait for."""
        return {
            sequence.request.adapter
            for sequence in self._waiting.values()
            if sequence.request.adapter is not None and not self._is_resident(sequence)
        }

    def rejected(self) -> list[tuple[RequestId, ServingError]]:
        """Requests that cannot fit beside their adapter or would be late, since this was asked."""
        rejected, self._rejected = self._rejected, []
        return rejected

    def adapter_slots(self) -> int:
        """Adapters that could be resident beside those who run; 0 if that is not known."""
        return self._pool.adapter_slots(self.promised())

    def promised(self) -> int:
        """Pages that running sequences are expected to need beyond theirs, and the watermark."""
        return self._promised_to(self._running.values())

    def first_need(self, adapter: Digest) -> int:
        """Pages that the first request which waits for this adapter starts with."""
        waiting = (s for s in self._waiting.values() if s.request.adapter == adapter)
        return max((self._need(sequence) for sequence in list(waiting)[:1]), default=0)

    def queued(self) -> list[Sequence]:
        """What runs or could, but for memory, in order of arrival."""
        there = (s for s in self._waiting.values() if self._is_resident(s))
        return sorted((*self._running.values(), *there), key=lambda s: s.arrived)

    def plan(self, now: float = 0.0, only: Collection[RequestId] | None = None) -> StepPlan:
        """`now`: seconds on any clock that only moves forward. `only`: whom the step may run; those
        that run otherwise keep their pages."""
        self._step, self._now = self._step + 1, now
        self._punctuality.step_begins(now)
        self._pool.tick()
        if self._limits.early_abort:
            self._refuse_the_late()
        self._only = only
        self._admit()
        slices = list(self._slices())
        # A sequence that gave way after it was planned runs in a later step.
        kept = [part for part in slices if part.sequence.request.id in self._running]
        kept.sort(key=lambda part: part.sequence.request.adapter or "")
        self._punctuality.step_runs(now, sum(part.count for part in kept))
        return StepPlan(tuple(kept))

    def end_of(self, sequence: Sequence) -> int:
        """Length at which the sequence ends for want of tokens or context."""
        return self._lengths.end_of(sequence)

    def _admit(self) -> None:
        """In order of arrival; one that cannot start yet is overtaken until its patience ends."""
        promised = self.promised()
        seats = self._limits.max_sequences - sum(map(self._may_run, self._running.values()))
        for sequence in list(self._waiting.values()):
            if seats <= 0:
                return
            if not self._may_run(sequence):
                continue
            if not self._can_ever_fit(sequence):
                del self._waiting[sequence.request.id]
                error = ResourceExhausted("the worker has no memory for request and adapter both")
                self._rejected.append((sequence.request.id, error))
                continue
            need = self._need(sequence)
            if self._is_held_back(sequence, self._running.values()):
                continue
            has_room = need + promised <= self._room_for(sequence)
            if has_room and self._is_resident(sequence):
                self._start(sequence)
                seats -= 1
                promised = self.promised()
                continue
            if has_room and sequence.stalled_at is None:
                sequence.stalled_at = self._now
            if self._step - sequence.arrived > self._limits.patience_steps:
                return

    def _may_run(self, sequence: Sequence) -> bool:
        return self._only is None or sequence.request.id in self._only

    def _is_held_back(self, sequence: Sequence, ahead: Collection[Sequence]) -> bool:
        """By clustering with those that run ahead of it, while its patience lasts."""
        most = self._limits.clustered_adapters
        if not most or self._step - sequence.arrived > self._limits.patience_steps:
            return False
        running = {other.request.adapter for other in ahead}
        return len(running) >= most and sequence.request.adapter not in running

    def _refuse_the_late(self) -> None:
        if not any(self._punctuality.limit(sequence) for sequence in self._waiting.values()):
            return
        late = self._punctuality.late(
            ((s, self._holder(s), self._is_resident(s)) for s in self._waiting.values()),
            [self._holder(sequence) for sequence in self._running.values()],
            free_pages=self._pool.available - self.promised(),
            free_slots=self._limits.max_sequences - len(self._running),
            now=self._now,
        )
        for sequence, error in list(late):
            del self._waiting[sequence.request.id]
            self._rejected.append((sequence.request.id, error))

    def _holder(self, sequence: Sequence) -> Holder:
        prefill = sequence.pending if sequence.pending > 1 else 0
        return Holder(self._need(sequence), prefill, self._lengths.steps_left(sequence))

    def _start(self, sequence: Sequence) -> None:
        del self._waiting[sequence.request.id]
        self._running[sequence.request.id] = sequence
        if sequence.request.adapter is not None:
            self._pool.residency.pin(sequence.request.adapter)
        self._pool.match(sequence)
        if not sequence.preempted:
            sequence.reused = sequence.cached
            since = self._now if sequence.stalled_at is None else sequence.stalled_at
            sequence.adapter_wait = self._now - since

    def _slices(self) -> Iterator[Slice]:
        """Decodes first: long prompts share what they leave of the step, oldest first."""
        budget = self._limits.max_step_tokens
        chosen = filter(self._may_run, self._running.values())
        for sequence in sorted(chosen, key=lambda s: s.pending > 1):
            count = min(sequence.pending, budget)
            if count and self._secure(sequence, sequence.cached + count):
                budget -= count
                yield Slice(sequence, sequence.cached, count)

    def _secure(self, sequence: Sequence, tokens: int) -> bool:
        """Pages for so many tokens, if need be those of younger sequences."""
        while sequence.request.id in self._running:
            if self._pool.grow(sequence, tokens):
                return True
            self._preempt(next(reversed(self._running.values())))
        return False

    def _preempt(self, sequence: Sequence) -> None:
        self._stop(sequence)
        sequence.preempted += 1
        self._waiting = {sequence.request.id: sequence, **self._waiting}

    def _stop(self, sequence: Sequence) -> None:
        del self._running[sequence.request.id]
        self._pool.take_back(sequence)
        if sequence.request.adapter is not None:
            self._pool.residency.unpin(sequence.request.adapter)

    def _is_resident(self, sequence: Sequence) -> bool:
        adapter = sequence.request.adapter
        return adapter is None or self._pool.residency.holds(adapter)

    def _need(self, sequence: Sequence) -> int:
        """Pages that the sequence is expected to come to."""
        return self._pool.pages_for(self._lengths.expected(sequence))

    def _can_ever_fit(self, sequence: Sequence) -> bool:
        adapter, residency = sequence.request.adapter, self._pool.residency
        beside = residency.pages_of(adapter) if adapter and residency.holds(adapter) else 0
        return self._pool.pages_for(self.end_of(sequence)) + beside <= self._most_for(sequence)

    def _most_for(self, sequence: Sequence) -> int:
        return self._pool.size - self._pool.residency.kept_beside(sequence.request.adapter)

    def _room_for(self, *sequences: Sequence) -> int:
        """Pages to be had when the sequences run: their own adapters' are none of them."""
        residency = self._pool.residency
        adapters = {s.request.adapter for s in sequences if self._is_resident(s)} - {None}
        own = sum(residency.pages_of(a) for a in adapters if a and residency.is_idle(a))
        return self._pool.available - own

    def _promised_to(self, sequences: Collection[Sequence]) -> int:
        """Pages that they are expected to need beyond theirs, and the watermark if any run."""
        if not sequences:
            return 0
        growth = sum(max(0, self._need(s) - len(s.pages)) for s in sequences)
        return growth + int(self._limits.watermark * self._pool.size)
