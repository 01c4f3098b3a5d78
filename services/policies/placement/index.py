"""The cheapest worker of a big fleet, without a look at each."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import replace
from itertools import chain, islice

from services.core.types import Digest, Fingerprint, WorkerId
from services.policies.placement.cost import Cost, cheapest, explain, obstacle, total_ms
from services.policies.placement.homes import Homes
from services.policies.placement.ranking import Ranking
from services.policies.placement.views import Wish, WorkerView

Able = Callable[[WorkerId], bool]

NEAR = 16
"""Workers that are looked at because they have least to do, and because they have the adapter."""


class Index:
    """Views that are kept up to date as workers report. It looks at the least loaded, at who has
    the adapter, and at its homes: so up to NEAR workers it chooses what cost.place does, and beyond
    that nearly always."""

    def __init__(self, count: Callable[[Digest], int] = lambda _: 1) -> None:
        """`count`: of homes that an adapter has."""
        self._count = count
        self._shards: dict[Fingerprint, _Shard] = {}
        self._bases: dict[WorkerId, Fingerprint] = {}

    def update(self, view: WorkerView) -> None:
        """It is like this now, whether it was known or not."""
        base = view.base_fingerprint
        if self._bases.get(view.id, base) != base:
            self.remove(view.id)
        self._bases[view.id] = base
        self._shards.setdefault(base, _Shard()).update(view)

    def remove(self, worker: WorkerId) -> None:
        """If it is not there it is no error."""
        base = self._bases.pop(worker, None)
        if base is not None:
            self._shards[base].remove(worker)

    def place(self, wish: Wish, able: Able | None = None) -> WorkerId | None:
        """None if no worker can run it. `able`: who could, beyond what views say; None: all."""
        wish = self._at_home(wish)
        near = (view for shard in self._asked(wish) for view in shard.near(wish, able))
        return cheapest(wish, near)

    def explain(self, wish: Wish) -> list[Cost]:
        """Every worker there is, the best first."""
        views = (view for shard in self._shards.values() for view in shard.views.values())
        return explain(self._at_home(wish), views)

    def homes(self, base: Fingerprint, adapter: Digest) -> tuple[WorkerId, ...]:
        """The best first."""
        shard = self._shards.get(base)
        return shard.homes.of(adapter, self._count(adapter)) if shard else ()

    def holders(self, base: Fingerprint, adapter: Digest) -> frozenset[WorkerId]:
        """Who has it on the device, in host memory or on its way."""
        shard = self._shards.get(base)
        return frozenset(shard.holders.get(adapter, ())) if shard else frozenset()

    def _at_home(self, wish: Wish) -> Wish:
        adapter = wish.adapter
        if adapter is None:
            return wish
        count = self._count(adapter)
        found = [shard.homes.of(adapter, count) for shard in self._asked(wish)]
        return replace(wish, homes=frozenset().union(*found))

    def _asked(self, wish: Wish) -> Iterable["_Shard"]:
        if wish.base_fingerprint is None:
            return self._shards.values()
        shard = self._shards.get(wish.base_fingerprint)
        return (shard,) if shard else ()


class _Shard:
    """Workers of one base model."""

    def __init__(self) -> None:
        self.views: dict[WorkerId, WorkerView] = {}
        self.homes = Homes()
        self.holders: dict[Digest, set[WorkerId]] = {}
        self._open = Ranking()  # by what a typical request costs
        self._full = Ranking()  # no sequence more, whatever it is like
        self._typical: Wish | None = None

    def update(self, view: WorkerView) -> None:
        before = self.views.get(view.id)
        self.views[view.id] = view
        self._typical = self._typical or Wish(view.base_model, view.base_fingerprint, None)
        had = _had(before) if before else ()
        has = _had(view)
        for old, new in zip(had or (frozenset(),) * len(has), has, strict=True):
            if old is not new:
                self._note(view, old - new, new - old)
        if view.draining:
            self.homes.leave(view.id)
        else:
            self.homes.join(view.id, float(max(1, view.most_sequences)))
        ranking, other = (self._open, self._full) if view.has_room(0) else (self._full, self._open)
        ranking.put(view.id, total_ms(view, self._typical))
        other.drop(view.id)

    def remove(self, worker: WorkerId) -> None:
        view = self.views.pop(worker)
        for adapter in frozenset().union(*_had(view)):
            self._forget(adapter, worker)
        self.homes.leave(worker)
        self._open.drop(worker)
        self._full.drop(worker)

    def near(self, wish: Wish, able: Able | None) -> Iterator[WorkerView]:
        """Those that can run it and may be the cheapest."""
        near = set(islice(self._able(self._ranked(wish), wish, able), NEAR))
        if wish.adapter is not None:
            holders = self.holders.get(wish.adapter, set())
            near.update(self._least(holders, wish, able))
        near.update(self._least(wish.homes & self.views.keys(), wish, able))
        return (self.views[worker] for worker in near)

    def _ranked(self, wish: Wish) -> Iterable[WorkerId]:
        return self._open if wish.needs_room else chain(self._open, self._full)

    def _able(
        self, workers: Iterable[WorkerId], wish: Wish, able: Able | None
    ) -> Iterator[WorkerId]:
        if able is not None:
            workers = filter(able, workers)
        return (worker for worker in workers if not obstacle(self.views[worker], wish))

    def _least(self, workers: Set[WorkerId], wish: Wish, able: Able | None) -> list[WorkerId]:
        """Of many, the first in the order of all."""
        if wish.needs_room and len(workers) * NEAR > len(self.views):
            ranked = (worker for worker in self._open if worker in workers)
            return list(islice(self._able(ranked, wish, able), NEAR))
        return heapq.nsmallest(NEAR, self._able(workers, wish, able), key=self._key)

    def _key(self, worker: WorkerId) -> tuple[float, WorkerId]:
        """Full ones after others."""
        return (self._open.key(worker) or self._full.key(worker) or 0.0), worker

    def _note(self, view: WorkerView, lost: Iterable[Digest], came: Iterable[Digest]) -> None:
        for adapter in came:
            self.holders.setdefault(adapter, set()).add(view.id)
        for adapter in lost:
            if view.place_of(adapter) is None:
                self._forget(adapter, view.id)

    def _forget(self, adapter: Digest, worker: WorkerId) -> None:
        holders = self.holders.get(adapter)
        if holders is not None:
            holders.discard(worker)
            if not holders:
                del self.holders[adapter]


def _had(view: WorkerView) -> tuple[frozenset[Digest], frozenset[Digest], frozenset[Digest]]:
    return view.resident, view.host, frozenset(view.loading)
