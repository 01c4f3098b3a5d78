"""Placements as the simulator drives them: the baselines as they are, and the one in production
with its counts of homes and its forecast."""

from collections.abc import Callable

from services.core.types import Digest, WorkerId
from services.policies.placement.baselines import Placement
from services.policies.placement.forecast import Forecast, Season
from services.policies.placement.index import Index
from services.policies.placement.preload import Preload, preloads
from services.policies.placement.replicas import Replicas, Rules
from services.policies.placement.views import Wish, WorkerView
from services.simulator.placement.worker import FINGERPRINT


class Unsteered:
    """A placement alone."""

    def __init__(self, placement: Placement) -> None:
        self.update = placement.update
        self.remove = placement.remove
        self.place: Callable[[Wish], WorkerId | None] = placement.place

    def arrived(self, adapter: Digest, now: float) -> None:
        """It does not look."""

    def tick(self, now: float) -> list[Preload]:
        return []


class MinCost:
    """`busy_ms`: of a worker's whole capacity, that a request is expected to take."""

    def __init__(self, rules: Rules, season: Season, busy_ms: float, *, foresees: bool) -> None:
        self.replicas = Replicas(rules)
        self.forecast = Forecast(season)
        self.index = Index(self.replicas.count)
        self._busy_ms = busy_ms
        self._foresees = foresees
        self._bucket = 0
        self._counts: dict[Digest, int] = {}

    def update(self, view: WorkerView) -> None:
        self.index.update(view)

    def remove(self, worker: WorkerId) -> None:
        self.index.remove(worker)

    def place(self, wish: Wish) -> WorkerId | None:
        return self.index.place(wish)

    def arrived(self, adapter: Digest, now: float) -> None:
        self.replicas.arrived(adapter, now, self._busy_ms)
        self.forecast.arrived(adapter, now)

    def tick(self, now: float) -> list[Preload]:
        """What grew is brought to its new homes at once, what is foreseen once a bucket."""
        self.replicas.settle(now)
        counts = self.replicas.counts()
        wanted = [(a, float(n)) for a, n in counts.items() if n > self._counts.get(a, 1)]
        self._counts = counts
        bucket = int(now // self.forecast.season.bucket_seconds)
        if self._foresees and bucket != self._bucket:
            self._bucket = bucket
            wanted += [
                (adapter, requests)
                for adapter, requests in self.forecast.every(now)
                if requests >= 1.0
            ]
        return preloads(wanted, self._homes, self._holders, most=256)

    def _homes(self, adapter: Digest) -> tuple[WorkerId, ...]:
        return self.index.homes(FINGERPRINT, adapter)

    def _holders(self, adapter: Digest) -> frozenset[WorkerId]:
        return self.index.holders(FINGERPRINT, adapter)
