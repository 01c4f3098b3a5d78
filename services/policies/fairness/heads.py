"""The first request of each queue, by the adapter it needs."""

from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import count

from services.core.types import Digest, RequestId
from services.policies.fairness.admission import Request

Path = tuple[str, ...]  # from the whole down to the queue that a request waits in
_Entry = tuple[float, int, Request]


class Heads:
    """Finds who had least of those who need an adapter, in O(log n). Counters grow while their
    entries lie here: an entry is corrected when it comes to the top."""

    def __init__(self, counter: Callable[[Path], float]) -> None:
        self._counter = counter
        self._paths: dict[RequestId, Path] = {}
        self._heaps: dict[Digest | None, list[_Entry]] = {}
        self._orders = count()

    def add(self, request: Request, path: Path) -> None:
        self._paths[request.id] = path
        entry = (self._counter(path), next(self._orders), request)
        heappush(self._heaps.setdefault(request.adapter, []), entry)

    def remove(self, request: RequestId) -> None:
        """One that is not here is no error."""
        self._paths.pop(request, None)

    def lowest(self, resident: Collection[Digest]) -> Iterator[tuple[Request, Path]]:
        """The first of each of these adapters, and of the base model, the lowest first."""
        few: Iterable[Digest] = resident
        if len(resident) > len(self._heaps):
            few = [each for each in self._heaps if each is not None and each in resident]
        found = [top for adapter in (None, *few) if (top := self._top(adapter)) is not None]
        for _, _, request in sorted(found, key=lambda entry: entry[:2]):
            yield request, self._paths[request.id]

    def _top(self, adapter: Digest | None) -> _Entry | None:
        heap = self._heaps.get(adapter)
        if heap is None:
            return None
        while heap:
            known, order, request = heap[0]
            path = self._paths.get(request.id)
            if path is None:
                heappop(heap)
            elif (now := self._counter(path)) != known:
                heapreplace(heap, (now, order, request))
            else:
                return heap[0]
        del self._heaps[adapter]
        return None
