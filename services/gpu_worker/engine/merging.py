"""One adapter in the weights: decided by a policy at every step, prepared a little in each, then
used from one step to the next. Nobody waits for it."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from services.core.types import Digest, RequestId
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.plan import StepPlan
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import Sequence as Running
from services.policies.merging.batches import Batch, Policy, Queued, Ran

T = TypeVar("T")

FOLD_STEPS = 16
"""That preparing takes. All of it reads and writes the weights about five times, which a step reads
once: so none is half as long again."""


class Folder(Protocol):
    """A second set of weights, which one adapter is folded into; the own ones never change."""

    @property
    def folds(self) -> int:
        """Parts that folding an adapter takes."""
        ...

    def begin_fold(self, adapter: Digest, pages: Sequence[int]) -> None:
        """The own weights are used from now on. `pages`, as many as the adapter's, are for what is
        added to the requests that are not its own, until the next fold or `use_own`."""
        ...

    def fold(self) -> bool:
        """One part; whether it was the last."""
        ...

    def use_folded(self) -> None: ...
    def use_own(self) -> None: ...


class MergeMode(Enum):
    """Of a step."""

    UNMERGED = "unmerged"
    MERGED = "merged"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class MergeState:
    """`ratio`: what a merged step was found to take of an unmerged one; None if nobody knows."""

    mode: MergeMode = MergeMode.UNMERGED
    adapter: Digest | None = None
    switches: int = 0
    ratio: float | None = None


class Merging:
    """Owned by the engine. `clock`: seconds, which only move forward."""

    def __init__(
        self, policy: Policy, folder: Folder, pool: Pool, *, seats: int, clock: Callable[[], float]
    ) -> None:
        self._policy = policy
        self._folder = folder
        self._pool = pool
        self._seats = seats
        self._clock = clock
        self._held: tuple[Digest, list[int]] | None = None  # what is folded, and pages for it
        self._is_folding = False
        self._asked = False  # whether the policy decided the step that runs
        self._mode = MergeMode.UNMERGED
        self._switches = 0

    @property
    def state(self) -> MergeState:
        return MergeState(self._mode, self._merged, self._switches, self._policy.ratio)

    @property
    def _merged(self) -> Digest | None:
        return None if self._held is None or self._is_folding else self._held[0]

    def plan(self, batcher: Batcher, now: float) -> StepPlan:
        """Of the next step."""
        running, promised = batcher.num_running, batcher.promised()
        only = self._decide(batcher.queued(), running=running, promised=promised)
        plan = batcher.plan(now, only)
        if only is not None and not plan.slices:  # those who pause have what they would need
            plan = batcher.plan(now)
        if not plan.slices:
            self.make_do(batcher)
        return plan

    def timed(self, run: Callable[[StepPlan], T]) -> Callable[[StepPlan], T]:
        """The policy is told of what ran."""

        def timed(plan: StepPlan) -> T:
            began = self._clock()
            result = run(plan)
            self._learn(plan, (self._clock() - began) * 1000)
            return result

        return timed

    def make_do(self, batcher: Batcher) -> None:
        """Without an adapter in the weights, if that is what keeps those who wait from starting."""
        if batcher.num_waiting and not batcher.num_running:
            self.let_go()

    def let_go(self) -> None:
        """Nothing is in the weights, and what that took is free."""
        if self._held is not None:
            adapter, pages = self._held
            self._folder.use_own()
            self._pool.residency.unpin(adapter)
            self._pool.pages.release(pages)
            self._switches += not self._is_folding
            self._held, self._is_folding = None, False

    def _decide(
        self, there: Sequence[Running], *, running: int, promised: int
    ) -> Collection[RequestId] | None:
        """Whom the step may run, None for anybody. `there`: sequences that run or could, in order
        of arrival, of which so many are `running`; `promised`: pages that those need yet."""
        self._asked = False
        if self._is_folding and not self._advance():
            return None
        if not there:
            return None
        queued = [_queued(sequence) for sequence in there]
        batch = self._policy.choose(queued)
        if batch.merged != self._merged:
            self.let_go()
            if batch.merged is not None:
                if running:  # else whoever comes first needs the pages more
                    self._begin(batch.merged, promised)
                return None
        self._asked = True
        is_as_ever = running <= self._seats and batch.requests == tuple(queued[: self._seats])
        return None if is_as_ever else frozenset(request.id for request in batch.requests)

    def _learn(self, plan: StepPlan, milliseconds: float) -> None:
        requests = tuple(_queued(part.sequence) for part in plan.slices)
        batch = Batch(requests, self._merged)
        self._mode = MergeMode.UNMERGED
        if self._merged is not None:
            self._mode = MergeMode.MIXED if batch.minority else MergeMode.MERGED
        prompts = Counter[str]()
        for part, request in zip(plan.slices, requests, strict=True):
            if part.count > 1:
                prompts[request.client] += part.count
        if self._asked:
            self._policy.ran(Ran(batch, 1, milliseconds, prompts))

    def _begin(self, adapter: Digest, promised: int) -> None:
        """If there is room."""
        residency = self._pool.residency
        residency.pin(adapter)
        pages = self._pool.spare(residency.pages_of(adapter), keep=promised)
        if pages is None:
            residency.unpin(adapter)
            return
        self._held, self._is_folding = (adapter, pages), True
        self._folder.begin_fold(adapter, pages)

    def _advance(self) -> bool:
        """Whether the adapter is folded."""
        for _ in range(-(-self._folder.folds // FOLD_STEPS)):
            if self._folder.fold():
                self._is_folding = False
                self._switches += 1
                self._folder.use_folded()
                return True
        return False


def _queued(sequence: Running) -> Queued:
    request = sequence.request
    return Queued(request.id, request.adapter, request.cache_salt)
