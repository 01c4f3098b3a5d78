"""Which adapters to bring where before they are asked for."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from services.core.types import Digest, WorkerId


@dataclass(frozen=True, slots=True)
class Preload:
    adapter: Digest
    worker: WorkerId


def preloads(
    expected: Iterable[tuple[Digest, float]],
    homes: Callable[[Digest], Iterable[WorkerId]],
    holders: Callable[[Digest], Collection[WorkerId]],
    *,
    least: float = 1.0,
    most: int = 64,
    most_each: int = 1,
) -> list[Preload]:
    """To homes, until as many workers have it as it has homes; the most wanted first. `expected`:
    requests, below `least` of which it is not worth it; `most`, and `most_each` of a worker: at
    once, so that they take the link from nobody who waits."""
    found: list[Preload] = []
    ordered: dict[WorkerId, int] = {}
    wanted = [(requests, adapter) for adapter, requests in expected if requests >= least]
    for _, adapter in sorted(wanted, reverse=True):
        there, at_home = holders(adapter), list(homes(adapter))
        absent = [worker for worker in at_home if worker not in there]
        free = [worker for worker in absent if ordered.get(worker, 0) < most_each]
        for worker in free[: max(0, len(at_home) - len(there))]:
            found.append(Preload(adapter, worker))
            ordered[worker] = ordered.get(worker, 0) + 1
        if len(found) >= most:
            break
    return found[:most]
