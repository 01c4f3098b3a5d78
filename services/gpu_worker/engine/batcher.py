"""The next step: who is admitted, and how many tokens of whom run, within budgets."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.core.errors import InvalidRequest, ResourceExhausted, Unavailable
from services.core.types import Digest, RequestId
from services.gpu_worker.engine.pages import PagePool
from services.gpu_worker.engine.residency import Residency
from services.gpu_worker.engine.sequence import EngineRequest, Sequence


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of a worker, all at least 1. Raises ValueError."""

    max_step_tokens: int = 512
    max_sequences: int = 64
    max_waiting: int = 1024
    page_tokens: int = 16

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


@dataclass(frozen=True, slots=True)
class Slice:
    """What a step runs of one sequence: `count` tokens from `start`."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the step reaches the sequence's end, so that a token follows."""
        return self.start + self.count == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Complete when made. Slices of one adapter are neighbours; the base model's come first."""

    slices: tuple[Slice, ...]

    @property
    def adapters(self) -> int:
        return len({part.sequence.request.adapter for part in self.slices})


class Batcher:
    """Admits by the most pages that a request may come to need, so nothing is ever preempted."""

    def __init__(
        self, *, limits: Limits, pages: PagePool, residency: Residency, context_tokens: int
    ) -> None:
        self._limits = limits
        self._pages = pages
        self._residency = residency
        self._context_tokens = context_tokens
        self._waiting: dict[RequestId, EngineRequest] = {}
        self._running: dict[RequestId, Sequence] = {}

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def submit(self, request: EngineRequest) -> None:
        """Raises InvalidRequest, ResourceExhausted (never fits) or Unavailable (queue full)."""
        if len(request.prompt) >= self._context_tokens:
            raise InvalidRequest.of(
                "prompt", f"must be shorter than the context of {self._context_tokens} tokens"
            )
        if self._pages_for(request) > self._pages.size:
            raise ResourceExhausted("the request needs more memory than the worker has")
        if len(self._waiting) >= self._limits.max_waiting:
            raise Unavailable("too many requests wait here")
        self._waiting[request.id] = request

    def cancel(self, request: RequestId) -> None:
        """Frees what the request holds; a request that is not here is no error."""
        self._waiting.pop(request, None)
        if request in self._running:
            self.retire(self._running[request])

    def retire(self, sequence: Sequence) -> None:
        del self._running[sequence.request.id]
        self._pages.release(sequence.pages)
        if sequence.request.adapter is not None:
            self._residency.unpin(sequence.request.adapter)

    def wanted(self) -> set[Digest]:
        """Adapters that requests wait for."""
        return {
            request.adapter
            for request in self._waiting.values()
            if request.adapter is not None and not self._residency.holds(request.adapter)
        }

    def plan(self) -> StepPlan:
        self._admit()
        # Decodes first: long prompts share what they leave of the step, oldest first.
        by_need = sorted(self._running.values(), key=lambda sequence: sequence.pending > 1)
        slices = list(_take(by_need, self._limits.max_step_tokens))
        slices.sort(key=lambda part: part.sequence.request.adapter or "")
        return StepPlan(tuple(slices))

    def end_of(self, sequence: Sequence) -> int:
        """Length at which the sequence ends for want of tokens or context."""
        request = sequence.request
        return min(len(request.prompt) + request.sampling.max_tokens, self._context_tokens)

    def _admit(self) -> None:
        """In order of arrival; one whose adapter is still loading is overtaken."""
        for request in list(self._waiting.values()):
            if len(self._running) >= self._limits.max_sequences:
                return
            if request.adapter is not None and not self._residency.holds(request.adapter):
                continue
            needed = self._pages_for(request)
            if needed > self._pages.num_free:
                return
            if request.adapter is not None:
                self._residency.pin(request.adapter)
            del self._waiting[request.id]
            self._running[request.id] = Sequence(request, self._pages.allocate(needed))

    def _pages_for(self, request: EngineRequest) -> int:
        tokens = min(len(request.prompt) + request.sampling.max_tokens, self._context_tokens)
        return -(-tokens // self._limits.page_tokens)


def _take(sequences: Iterable[Sequence], budget: int) -> Iterator[Slice]:
    for sequence in sequences:
        if budget == 0:
            return
        count = min(sequence.pending, budget)
        budget -= count
        yield Slice(sequence, sequence.cached, count)
