"""Which worker gets a request: resident adapter first, then the least loaded."""

from collections.abc import Iterable
from dataclasses import dataclass

from services.core.types import Digest, Fingerprint, WorkerId


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What placement may know of a worker."""

    id: WorkerId
    base_model: str
    base_fingerprint: Fingerprint
    running: int
    waiting: int
    free_pages: int
    resident: frozenset[Digest]
    draining: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that looks for a worker."""

    base_model: str
    base_fingerprint: Fingerprint | None
    adapter: Digest | None
    excluded: frozenset[WorkerId] = frozenset()


def place(wish: Wish, fleet: Iterable[WorkerView]) -> WorkerId | None:
    """The best worker that can run the wish at all; ties go to the lowest id.

    Affinity yields to load: a worker with a queue loses to one without, whatever is resident
    (Ray Serve's hot adapters stayed on one replica because theirs does not).
    """
    able = [worker for worker in fleet if _can_run(worker, wish)]
    return min(able, key=lambda worker: _cost(worker, wish)).id if able else None


def _can_run(worker: WorkerView, wish: Wish) -> bool:
    return (
        not worker.draining
        and worker.id not in wish.excluded
        and worker.base_model == wish.base_model
        and wish.base_fingerprint in (None, worker.base_fingerprint)
    )


def _cost(worker: WorkerView, wish: Wish) -> tuple[int, bool, int, int, WorkerId]:
    absent = wish.adapter is not None and wish.adapter not in worker.resident
    return worker.waiting, absent, worker.running, -worker.free_pages, worker.id
