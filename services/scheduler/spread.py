"""On how many workers each adapter is at home, and who should have it before it is asked for.

By what gateways say came: of the work that an adapter's requests are, and of how many come when.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from services.core.clock import Clock
from services.core.types import Digest, Fingerprint, WorkerId
from services.policies.placement.forecast import Forecast
from services.policies.placement.homes import Homes
from services.policies.placement.preload import preloads
from services.policies.placement.replicas import Replicas
from services.scheduler.fleet import Fleet
from services.scheduler.orders import Preload
from services.scheduler.wishes import WorkerState
from services.scheduler.worker import Worker

RATE_SECONDS = 30.0  # that arrivals look back
FEWEST_SECONDS = 1.0  # below which they say nothing
AGAIN_SECONDS = (
    600.0  # until what a worker was to fetch, and has not or not any more, is tried again
)
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 120.0  # that a request is believed to run


@dataclass(slots=True)
class _Base:
    """Of a base model. `requests`: that came in `seconds`, both weighted exponentially."""

    replicas: Replicas = field(default_factory=Replicas)
    forecast: Forecast = field(default_factory=Forecast)
    homes: Homes = field(default_factory=Homes)
    requests: float = 0.0
    seconds: float = 0.0
    at: float | None = None

    def count(self, requests: int, now: float) -> None:
        """In what time the first came nobody knows: they do not count."""
        if self.at is not None:
            kept = math.exp((self.at - now) / RATE_SECONDS)
            self.requests = self.requests * kept + requests
            self.seconds = self.seconds * kept + now - self.at
        self.at = now

    @property
    def per_second(self) -> float:
        """0 until enough was seen."""
        return self.requests / self.seconds if self.seconds >= FEWEST_SECONDS else 0.0


class Spread:
    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._bases: dict[Fingerprint, _Base] = {}
        self._ordered: dict[tuple[Digest, WorkerId], float] = {}

    def arrived(self, base: Fingerprint, requests: Mapping[Digest, int]) -> None:
        """By adapter, "" for the base model, since a gateway said so last."""
        now, known = self._clock.now(), self._bases.setdefault(base, _Base())
        known.count(sum(requests.values()), now)
        busy_ms = self._busy_ms(base, known.per_second)
        for adapter, times in requests.items():
            if adapter:
                known.replicas.arrived(adapter, now, busy_ms, times)
                known.forecast.arrived(adapter, now, times)

    def count(self, adapter: Digest) -> int:
        """Of its homes."""
        pin = self._fleet.wishes.pins.get(adapter)
        found = (base.replicas.count(adapter) for base in self._bases.values())
        return max(1, pin.workers if pin is not None else 0, *found)

    def counts(self) -> dict[Digest, int]:
        """Of adapters that have more than one."""
        counts = {adapter: pin.workers for adapter, pin in self._fleet.wishes.pins.items()}
        for base in self._bases.values():
            for adapter, count in base.replicas.counts().items():
                counts[adapter] = max(count, counts.get(adapter, 0))
        return {adapter: count for adapter, count in counts.items() if count > 1}

    def settle(self) -> None:
        """About once a second."""
        for base in self._bases.values():
            base.replicas.settle(self._clock.now())

    def expected(self) -> Iterator[tuple[Fingerprint, Digest, float]]:
        """Requests of the next minutes, by adapter. Takes half a second for 100,000 of them; what
        comes while it is not asked for the next is no error."""
        now = self._clock.now()
        for base, known in list(self._bases.items()):
            for adapter, requests in known.forecast.every(now):
                yield base, adapter, requests

    def preload(self, expected: Iterable[tuple[Fingerprint, Digest, float]]) -> int:
        """Orders what its homes do not have; how many. Who has lost it again had no room for it."""
        now = self._clock.now()
        oldest = now - AGAIN_SECONDS
        self._ordered = {what: at for what, at in self._ordered.items() if at > oldest}
        ordered, by_base = 0, defaultdict[Fingerprint, list[tuple[Digest, float]]](list)
        for base, adapter, requests in expected:
            by_base[base].append((adapter, requests))
        for base, of_base in by_base.items():
            workers, known = self._serving(base), self._bases[base].homes
            known.are({worker.identity.id: 1.0 for worker in workers})
            holders = _holders(workers)

            def at_home(adapter: Digest) -> list[WorkerId]:
                chosen = known.of(adapter, self.count(adapter))  # noqa: B023
                there = holders.get(adapter, ())  # noqa: B023
                return [w for w in chosen if w in there or (adapter, w) not in self._ordered]

            for each in preloads(
                (each for each in of_base if len(holders.get(each[0], ())) < self.count(each[0])),
                at_home,
                lambda adapter: holders.get(adapter, ()),  # noqa: B023
            ):
                self._fleet.order(each.worker, Preload(each.adapter))
                self._ordered[each.adapter, each.worker] = now
                ordered += 1
        return ordered

    def _busy_ms(self, base: Fingerprint, per_second: float) -> float:
        """Of a worker's whole capacity, that a request takes: how long they run (Little's law) by
        how many of them run there at once."""
        workers = self._serving(base)
        seats = sum(max(1, worker.report.most_sequences) for worker in workers)
        if not seats or per_second <= 0:
            return 0.0
        seconds = sum(worker.report.running for worker in workers) / per_second
        seconds = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, seconds))
        return seconds * 1000 * len(workers) / seats

    def _serving(self, base: Fingerprint) -> list[Worker]:
        return [
            worker
            for worker in self._fleet.live()
            if worker.identity.base_fingerprint == base and worker.state is WorkerState.SERVING
        ]


def _holders(workers: Iterable[Worker]) -> dict[Digest, set[WorkerId]]:
    """Who has an adapter anywhere, or will soon."""
    holders: dict[Digest, set[WorkerId]] = {}
    for worker in workers:
        for load in worker.report.adapters or ():
            holders.setdefault(load.digest, set()).add(worker.identity.id)
    return holders
