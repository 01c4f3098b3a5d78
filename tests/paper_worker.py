"""A worker on paper, of so many slots and tokens, and a fleet of it alone."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

from services.core.reports import NO_LOAD_TIMES, LoadTimes
from services.core.types import Digest, Fingerprint, RequestId, TokenPiece, WorkerId
from services.gateway.course import Job
from services.gateway.fair_queue import FairQueue
from services.gateway.lines import Lines
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.placement.views import UNKNOWN_EVICTS_MS, WorkerView
from tests.tiny_models import tiny_card

CARD = tiny_card()


@dataclass(eq=False)
class PaperWorker:
    """As it is, it takes all that tests have. `follow` is left to say."""

    name: str = "w1"
    slots: int = 1000
    pool_tokens: int = 1_000_000
    adapters: frozenset[Digest] = frozenset()
    load_times: LoadTimes = NO_LOAD_TIMES
    base: Fingerprint = CARD.fingerprint
    held: dict[RequestId, Job] = field(default_factory=dict)
    fetched: list[Digest] = field(default_factory=list)
    has_ended: bool = False
    output_share: float = 1.0

    @property
    def has_room(self) -> bool:
        return len(self.held) < self.slots

    @property
    def free_tokens(self) -> float:
        used = sum(map(_size, self.held.values()))
        return self.pool_tokens - used

    @property
    def view(self) -> WorkerView:
        return WorkerView(
            id=WorkerId(self.name),
            base_model=CARD.name,
            base_fingerprint=self.base,
            running=len(self.held),
            waiting=0,
            free_pages=0,
            resident=self.adapters,
            draining=False,
            evicts_ms=UNKNOWN_EVICTS_MS,
            is_full=not self.has_room,
            load_times=self.load_times,
        )

    def lines(self, base: Fingerprint) -> Lines:
        return lines_to([self])

    def serves(self, job: Job) -> bool:
        return True

    def fits(self, job: Job) -> bool:
        return self.has_room and _size(job) <= self.free_tokens

    def promise(self, job: Job) -> None:
        assert self.fits(job)
        self.held[job.request_id] = job

    def withdraw(self, request: RequestId) -> None:
        self.held.pop(request, None)

    def prefetch(self, adapter: Digest) -> None:
        self.fetched.append(adapter)

    def follow(self, job: Job, seconds: float) -> AsyncGenerator[TokenPiece, None]:
        raise NotImplementedError

    def queue(self) -> FairQueue:
        """First come, first served."""
        return FairQueue(self, lambda _: POLICIES["fcfs"](Knobs()))


def lines_to(workers: Iterable[PaperWorker]) -> Lines:
    """As they are at this moment."""
    lines = Lines()
    for worker in workers:
        lines.put(worker)
    return lines


def _size(job: Job) -> int:
    return len(job.prompt) + job.sampling.max_tokens
