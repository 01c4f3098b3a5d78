"""A worker on paper, and a fleet of it alone: takes whatever comes."""

from collections.abc import AsyncGenerator, Sequence

from services.core.types import Digest, Fingerprint, RequestId, TokenPiece, WorkerId
from services.gateway.course import Job
from services.gateway.fair_queue import FairQueue
from services.gateway.lane import Line
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.placement import WorkerView
from tests.tiny_models import tiny_card

CARD = tiny_card()


class PaperWorker:
    """`follow` is left to say."""

    has_room = True
    pool_tokens = 1000
    adapters: frozenset[Digest] = frozenset()
    view = WorkerView(
        id=WorkerId("w"),
        base_model=CARD.name,
        base_fingerprint=CARD.fingerprint,
        running=0,
        waiting=0,
        free_pages=0,
        resident=frozenset(),
        draining=False,
    )

    def lines(self, base: Fingerprint) -> Sequence[Line]:
        return [self]

    def fits(self, job: Job) -> bool:
        return True

    def promise(self, job: Job) -> None:
        pass

    def withdraw(self, request: RequestId) -> None:
        pass

    def prefetch(self, adapter: Digest) -> None:
        pass

    def follow(self, job: Job, seconds: float) -> AsyncGenerator[TokenPiece, None]:
        raise NotImplementedError

    def queue(self) -> FairQueue:
        """First come, first served."""
        return FairQueue(self, lambda _: POLICIES["fcfs"](Knobs()))
