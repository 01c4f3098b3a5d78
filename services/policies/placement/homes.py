"""Which workers are an adapter's homes: by rendezvous hashing, weighted by what they can take.

Each worker has a score for each adapter, whoever else is there: so one that comes takes only what
is its own, and one that goes leaves the others where they are.
"""

import hashlib
import heapq
import math
from collections import OrderedDict, defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from services.core.types import Digest, WorkerId

_PRIME = (1 << 61) - 1
_MASK = np.uint64(_PRIME)
_Numbers = NDArray[np.uint64]
REMEMBERED = 100_000  # adapters whose homes were asked for last


def homes(adapter: Digest, workers: Mapping[WorkerId, float], count: int) -> tuple[WorkerId, ...]:
    """The best first, all if there are fewer. `workers`: their capacities, above 0."""
    known = Homes(remembered=1)
    for worker, capacity in workers.items():
        known.join(worker, capacity)
    return known.of(adapter, count)


class Homes:
    """For adapters that are asked for again and again.

    Scores are products of seeds in a prime field: a fiftieth of the time of a hash for each pair.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._capacities: dict[WorkerId, float] = {}
        self._seeds: defaultdict[float, dict[WorkerId, int]] = defaultdict(dict)  # by capacity
        self._arrays: dict[float, tuple[list[WorkerId], _Numbers]] = {}  # of those
        self._found: OrderedDict[Digest, tuple[WorkerId, ...]] = OrderedDict()
        self._remembered = remembered

    def are(self, workers: Mapping[WorkerId, float]) -> None:
        """These, with their capacities, and no others."""
        for gone in self._capacities.keys() - workers.keys():
            self.leave(gone)
        for worker, capacity in workers.items():
            self.join(worker, capacity)

    def join(self, worker: WorkerId, capacity: float) -> None:
        """Again with another capacity, it is another. Raises ValueError."""
        if not 0 < capacity < math.inf:
            raise ValueError(f"the capacity of worker {worker} must be above 0")
        if self._capacities.get(worker) == capacity:
            return
        self.leave(worker)
        self._capacities[worker] = capacity
        self._seeds[capacity][worker] = _seed(worker)
        self._forget(capacity)

    def leave(self, worker: WorkerId) -> None:
        """If it is not there it is no error."""
        capacity = self._capacities.pop(worker, None)
        if capacity is not None:
            del self._seeds[capacity][worker]
            self._forget(capacity)

    def of(self, adapter: Digest, count: int = 1) -> tuple[WorkerId, ...]:
        """The best first, all if there are fewer."""
        found = self._found.pop(adapter, ())
        if len(found) < min(count, len(self._capacities)):
            found = self._ranked(_seed(adapter), count)
        self._found[adapter] = found
        if len(self._found) > self._remembered:
            self._found.popitem(last=False)
        return found[:count]

    def _ranked(self, seed: int, count: int) -> tuple[WorkerId, ...]:
        best: list[tuple[float, WorkerId]] = []
        for capacity, seeds in self._seeds.items():
            if capacity not in self._arrays:
                self._arrays[capacity] = [*seeds], np.array([*seeds.values()], dtype=np.uint64)
            workers, others = self._arrays[capacity]
            draws = _products(seed, others)
            best += [
                (-capacity / math.log((int(draws[place]) + 0.5) / _PRIME), workers[place])
                for place in _largest(draws, count)
            ]
        return tuple(worker for _, worker in heapq.nlargest(count, best))

    def _forget(self, capacity: float) -> None:
        self._arrays.pop(capacity, None)
        self._found.clear()


def _products(seed: int, others: _Numbers) -> _Numbers:
    """seed * other % _PRIME of each, in 64 bits: what a number has above 61 bits is added to what
    it has below, for the prime is 2^61 - 1."""
    high, low = np.uint64(seed >> 32), np.uint64(seed & 0xFFFFFFFF)
    highs, lows = others >> np.uint64(32), others & np.uint64(0xFFFFFFFF)
    above, middles = np.divmod(high * lows + highs * low, np.uint64(1 << 29))
    parts = low * lows, high * highs * np.uint64(8), above + middles * np.uint64(1 << 32)
    found = np.zeros_like(others)
    for part in parts:
        found += (part & _MASK) + (part >> np.uint64(61))
    return np.remainder(found, _MASK)


def _largest(draws: _Numbers, count: int) -> NDArray[np.intp]:
    """Where they are."""
    if count >= len(draws):
        return np.arange(len(draws))
    return np.argpartition(draws, -count)[-count:]


def _seed(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (_PRIME - 1) + 1
