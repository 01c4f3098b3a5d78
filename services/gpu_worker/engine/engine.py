"""Plan, run, settle: one iteration of continuous batching (Orca, OSDI'22, section 4)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from services.core.errors import ResourceExhausted, ServingError
from services.core.reports import SequenceLoad
from services.core.types import (
    AdapterWait,
    BatchFacts,
    Digest,
    FinishReason,
    PositionLogprobs,
    RequestId,
    Room,
    TokenPiece,
)
from services.gpu_worker.engine import sequence as running
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.carrying import Carrying, Memory
from services.gpu_worker.engine.keeping import Keeping
from services.gpu_worker.engine.merging import Merging
from services.gpu_worker.engine.plan import StepPlan
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest


@dataclass(frozen=True, slots=True)
class Sampled:
    """The token that follows one slice."""

    token: int
    logprobs: PositionLogprobs | None = None


class Weights(Protocol):
    """An adapter on the host, in pages that are ready to be copied."""

    @property
    def pages(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...


class ModelRunner(Protocol):
    """torch in production; anything that maps a plan to tokens will do."""

    def run(self, plan: StepPlan) -> Sequence[Sampled | None]:
        """One per slice; None where the slice does not sample."""
        ...

    def fill(self, weights: Weights, pages: Sequence[int]) -> None:
        """Copy an adapter into pages reserved for it. May run beside a step, in any thread."""
        ...

    def bind(self, adapter: Digest, weights: Weights, pages: Sequence[int]) -> None:
        """From now on slices of this adapter may come."""
        ...

    def unbind(self, adapter: Digest) -> None: ...


@dataclass(frozen=True, slots=True)
class Left:
    """A sequence that went on elsewhere: all its tokens, and of those of its prompt, how many had
    been cached when it began."""

    tokens: tuple[int, ...]
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """Sequences, those that run first; pages of adapters on the device; which of them are kept,
    and which should be but have no room."""

    sequences: tuple[SequenceLoad, ...]
    pages: Mapping[Digest, int]
    kept: frozenset[Digest]
    without_room: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did, for callers and metrics. Free pages include what is idle."""

    pieces: tuple[tuple[RequestId, TokenPiece], ...]
    refused: tuple[tuple[RequestId, ServingError], ...]
    sequences: int
    adapters: int
    tokens: int
    prompt_tokens: int
    reused_tokens: int
    running: int
    waiting: int
    free_pages: int
    total_pages: int

    @property
    def is_idle(self) -> bool:
        return self.sequences == 0


class Engine:
    """Synchronous, and owned by one thread."""

    def __init__(
        self,
        *,
        batcher: Batcher,
        runner: ModelRunner,
        pool: Pool,
        end_tokens: Collection[int],
        memory: Memory | None = None,
        merging: Merging | None = None,
    ) -> None:
        """Without `memory`, keys and values are never carried from one worker to another; without
        `merging`, no adapter is ever folded into the weights."""
        self._batcher = batcher
        self._runner = runner
        self._pool = pool
        self._end_tokens = frozenset(end_tokens)
        self.merging = merging
        self._filling: dict[Digest, tuple[Weights, Sequence[int]]] = {}
        self._keeping = Keeping(pool)
        self.carrying = None if memory is None else Carrying(pool, memory)

    @property
    def resident(self) -> tuple[Digest, ...]:
        return self._pool.residency.resident

    def submit(self, request: EngineRequest, now: float = 0.0) -> None:
        """Raises InvalidRequest, ResourceExhausted (it can never fit) or Unavailable."""
        self._batcher.submit(request, now)

    def has_room(self, request: EngineRequest) -> bool:
        """Whether it would start in the next step, behind all who wait already."""
        return self._batcher.has_room(request)

    def room(self) -> Room:
        """What it could start beyond what it has."""
        return self._batcher.room()

    def cancel(self, request: RequestId) -> None:
        """Frees everything that the request holds, at once."""
        self._batcher.cancel(request)

    def leave(self, request: RequestId) -> Left | None:
        """It goes on elsewhere: what it holds is freed, and its keys and values stay known as long
        as nobody needs the pages. None if it is not here."""
        sequence = self._batcher.find(request)
        if sequence is None:
            return None
        left = Left(tuple(sequence.tokens), sequence.reused_of_prompt)
        self._batcher.cancel(request)
        return left

    def holdings(self) -> Holdings:
        """What there is, for whoever places and moves."""
        residency = self._pool.residency
        pages = {adapter: residency.pages_of(adapter) for adapter in residency.resident}
        return Holdings(
            tuple(self._batcher.loads()),
            pages,
            frozenset(residency.kept),
            self._without_room(),
        )

    def promised(self) -> int:
        """Pages that those who run are expected to need yet."""
        return self._batcher.promised()

    def keep(self, adapters: frozenset[Digest]) -> None:
        """On the device from when they are there, and no others: half of the pool at most."""
        self._keeping.want(adapters)

    def wanted(self) -> set[Digest]:
        """Adapters that waiting requests need or that are to be kept, and that are neither resident
        nor on their way."""
        absent = self._keeping.absent(self._batcher.promised())
        return {digest for digest in self._batcher.wanted() | absent if digest not in self._filling}

    def reserve(self, adapter: Digest, weights: Weights) -> Callable[[], None] | None:
        """Make room for an adapter: what is to be called, in any thread, to copy it there.

        None if there is no room now, or no need. Raises ResourceExhausted if it never fits.
        """
        if self._pool.residency.holds(adapter) or adapter in self._filling:
            return None
        self._keeping.seen(adapter, weights.pages)
        if adapter not in self._batcher.wanted() and adapter in self._without_room():
            return None
        need = self._batcher.first_need(adapter)
        if weights.pages + need > self._pool.size:
            raise ResourceExhausted("the worker has no memory for request and adapter both")
        pages = self._pool.reserve(adapter, weights.pages, keep=need + self._batcher.promised())
        self._unbind_evicted()
        if pages is None:
            if self.merging is not None:
                self.merging.make_do(self._batcher)
            return None
        self._filling[adapter] = (weights, pages)
        return partial(self._runner.fill, weights, pages)

    def activate(self, adapter: Digest) -> None:
        """The copy is done: the adapter is resident."""
        weights, pages = self._filling.pop(adapter)
        self._runner.bind(adapter, weights, pages)
        self._pool.activate(adapter)
        self._keeping.arrived(adapter)

    def step(self, now: float = 0.0) -> StepReport:
        """`now`: seconds on any clock that only moves forward; promises are kept by it."""
        merging = self.merging
        plan = self._batcher.plan(now) if merging is None else merging.plan(self._batcher, now)
        self._unbind_evicted()
        reused = sum(p.sequence.reused for p in plan.slices if p.start == p.sequence.reused)
        run = self._runner.run if merging is None else merging.timed(self._runner.run)
        sampled = run(plan) if plan.slices else ()
        facts = BatchFacts(len(plan.slices), plan.adapters)
        pieces = []
        refused: list[tuple[RequestId, ServingError]] = [*self._batcher.rejected()]
        for part, result in zip(plan.slices, sampled, strict=True):
            sequence = part.sequence
            sequence.cached += part.count
            sequence.peak = _larger(sequence.peak, facts)
            if result is None:
                continue
            try:
                pieces.append((sequence.request.id, self._settle(sequence, result, facts)))
            except ServingError as error:
                self._batcher.cancel(sequence.request.id)
                refused.append((sequence.request.id, error))
        return StepReport(
            pieces=tuple(pieces),
            refused=tuple(refused),
            sequences=len(plan.slices),
            adapters=plan.adapters,
            tokens=sum(part.count for part in plan.slices),
            prompt_tokens=sum(part.count for part in plan.slices if part.count > 1),
            reused_tokens=reused,
            running=self._batcher.num_running,
            waiting=self._batcher.num_waiting,
            free_pages=self._pool.available,
            total_pages=self._pool.size,
        )

    def _without_room(self) -> frozenset[Digest]:
        """Of those that are to be kept."""
        return self._keeping.without_room(self._batcher.promised())

    def _unbind_evicted(self) -> None:
        for adapter in self._pool.evicted():
            self._runner.unbind(adapter)

    def _settle(self, sequence: running.Sequence, result: Sampled, step: BatchFacts) -> TokenPiece:
        sequence.tokens.append(result.token)
        finish = self._finish_of(sequence, result.token)
        if finish is not None:
            self._batcher.retire(sequence)
        return TokenPiece(
            tokens=(result.token,),
            logprobs=() if result.logprobs is None else (result.logprobs,),
            finish_reason=finish,
            batch=None if finish is None else sequence.peak,
            cached_tokens=0 if finish is None else sequence.reused_of_prompt,
            adapter_wait=self._adapter_wait(sequence, step),
        )

    def _adapter_wait(self, sequence: running.Sequence, step: BatchFacts) -> AdapterWait | None:
        """With its first token."""
        if sequence.generated > 1 or not (slots := self._batcher.adapter_slots()):
            return None
        return AdapterWait(sequence.adapter_wait, step.peak_sequences, slots)

    def _finish_of(self, sequence: running.Sequence, token: int) -> FinishReason | None:
        request = sequence.request
        if token in self._end_tokens and not request.sampling.ignore_eos:
            return FinishReason.STOP
        if token in request.sampling.stop_tokens:
            return FinishReason.STOP
        if request.filter is not None and request.filter.advance(token):
            return FinishReason.STOP
        if len(sequence.tokens) >= self._batcher.end_of(sequence):
            return FinishReason.LENGTH
        return None


def _larger(one: BatchFacts, other: BatchFacts) -> BatchFacts:
    return max(one, other, key=lambda facts: (facts.peak_adapters, facts.peak_sequences))
