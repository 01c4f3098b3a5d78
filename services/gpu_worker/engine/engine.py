"""Plan, run, settle: one iteration of continuous batching (Orca, OSDI'22, section 4)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.core.types import (
    BatchFacts,
    Digest,
    FinishReason,
    PositionLogprobs,
    RequestId,
    TokenPiece,
)
from services.gpu_worker.engine import sequence as running
from services.gpu_worker.engine.batcher import Batcher, StepPlan
from services.gpu_worker.engine.pages import PagePool
from services.gpu_worker.engine.residency import Residency
from services.gpu_worker.engine.sequence import EngineRequest


@dataclass(frozen=True, slots=True)
class Sampled:
    """The token that follows one slice."""

    token: int
    logprobs: PositionLogprobs | None = None


class Weights(Protocol):
    """An adapter on the host, ready to load."""

    @property
    def size_bytes(self) -> int: ...


class ModelRunner(Protocol):
    """torch in production; anything that maps a plan to tokens will do."""

    def run(self, plan: StepPlan) -> Sequence[Sampled | None]:
        """One per slice; None where the slice does not sample."""
        ...

    def load(self, adapter: Digest, weights: Weights) -> None: ...

    def unload(self, adapter: Digest) -> None: ...


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did, for callers and metrics. Pages are KV pages."""

    pieces: tuple[tuple[RequestId, TokenPiece], ...]
    sequences: int
    adapters: int
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
        pages: PagePool,
        residency: Residency,
        end_tokens: Collection[int],
    ) -> None:
        self._batcher = batcher
        self._runner = runner
        self._pages = pages
        self._residency = residency
        self._end_tokens = frozenset(end_tokens)

    @property
    def resident(self) -> tuple[Digest, ...]:
        return self._residency.resident

    def submit(self, request: EngineRequest) -> None:
        """Raises InvalidRequest, ResourceExhausted (it can never fit) or Unavailable."""
        self._batcher.submit(request)

    def cancel(self, request: RequestId) -> None:
        """Frees everything that the request holds, at once."""
        self._batcher.cancel(request)

    def wanted(self) -> set[Digest]:
        """Adapters that waiting requests need and that are not resident."""
        return self._batcher.wanted()

    def load(self, adapter: Digest, weights: Weights) -> bool:
        """Make an adapter resident; False if pinned ones leave no room now.

        Raises ResourceExhausted if it could never fit.
        """
        if self._residency.holds(adapter):
            return True
        victims = self._residency.victims(weights.size_bytes)
        if victims is None:
            return False
        for victim in victims:
            self._residency.drop(victim)
            self._runner.unload(victim)
        self._runner.load(adapter, weights)
        self._residency.add(adapter, weights.size_bytes)
        return True

    def step(self) -> StepReport:
        plan = self._batcher.plan()
        sampled = self._runner.run(plan) if plan.slices else ()
        facts = BatchFacts(len(plan.slices), plan.adapters)
        pieces = []
        for part, result in zip(plan.slices, sampled, strict=True):
            sequence = part.sequence
            sequence.cached += part.count
            sequence.peak = _larger(sequence.peak, facts)
            if result is not None:
                pieces.append((sequence.request.id, self._settle(sequence, result)))
        return StepReport(
            pieces=tuple(pieces),
            sequences=len(plan.slices),
            adapters=plan.adapters,
            running=self._batcher.num_running,
            waiting=self._batcher.num_waiting,
            free_pages=self._pages.num_free,
            total_pages=self._pages.size,
        )

    def _settle(self, sequence: running.Sequence, result: Sampled) -> TokenPiece:
        sequence.tokens.append(result.token)
        finish = self._finish_of(sequence, result.token)
        if finish is not None:
            self._batcher.retire(sequence)
        return TokenPiece(
            tokens=(result.token,),
            logprobs=() if result.logprobs is None else (result.logprobs,),
            finish_reason=finish,
            batch=None if finish is None else sequence.peak,
        )

    def _finish_of(self, sequence: running.Sequence, token: int) -> FinishReason | None:
        if token in self._end_tokens and not sequence.request.sampling.ignore_eos:
            return FinishReason.STOP
        if len(sequence.tokens) >= self._batcher.end_of(sequence):
            return FinishReason.LENGTH
        return None


def _larger(one: BatchFacts, other: BatchFacts) -> BatchFacts:
    return max(one, other, key=lambda facts: (facts.peak_adapters, facts.peak_sequences))
