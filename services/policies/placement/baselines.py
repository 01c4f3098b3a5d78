"""Placements that look at one thing only, to be measured against."""

from collections.abc import Callable, Mapping
from typing import Protocol

from services.core.types import Digest, WorkerId
from services.policies.placement.cost import obstacle
from services.policies.placement.homes import Homes
from services.policies.placement.ranking import Ranking
from services.policies.placement.views import Wish, WorkerView

Draw = Callable[[], float]


class Placement(Protocol):
    """Chooses among workers of one base model; index.Index is one."""

    def update(self, view: WorkerView) -> None: ...
    def remove(self, worker: WorkerId) -> None: ...
    def place(self, wish: Wish) -> WorkerId | None: ...


class _Views:
    """Workers by id, in an order that every process would find."""

    def __init__(self) -> None:
        self.views: dict[WorkerId, WorkerView] = {}
        self.order: list[WorkerId] = []

    def update(self, view: WorkerView) -> None:
        if view.id not in self.views:
            self.order = sorted([*self.order, view.id])
        self.views[view.id] = view

    def remove(self, worker: WorkerId) -> None:
        if self.views.pop(worker, None) is not None:
            self.order.remove(worker)

    def first_from(self, start: int, wish: Wish) -> int | None:
        """The place in the order of the first that can run it, round and round."""
        size = len(self.order)
        places = ((start + step) % size for step in range(size))
        return next((p for p in places if not obstacle(self.views[self.order[p]], wish)), None)


class Random(_Views):
    """Any that can run it."""

    def __init__(self, draw: Draw) -> None:
        """`draw`: from 0 to below 1."""
        super().__init__()
        self._draw = draw

    def place(self, wish: Wish) -> WorkerId | None:
        for _ in range(8):
            if self.order:
                worker = self.order[int(self._draw() * len(self.order))]
                if not obstacle(self.views[worker], wish):
                    return worker
        able = [worker for worker in self.order if not obstacle(self.views[worker], wish)]
        return able[int(self._draw() * len(able))] if able else None


class RoundRobin(_Views):
    """The next that can run it."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self._next = 0

    def place(self, wish: Wish) -> WorkerId | None:
        found = self.first_from(self._next, wish)
        if found is None:
            return None
        self._next = found + 1
        return self.order[found]


class LeastLoaded:
    """The one with fewest sequences for each that it can run."""

    def __init__(self, draw: Draw) -> None:
        self._views: dict[WorkerId, WorkerView] = {}
        self._ranking = Ranking()

    def update(self, view: WorkerView) -> None:
        self._views[view.id] = view
        self._ranking.put(view.id, (view.running + view.waiting) / max(1, view.most_sequences))

    def remove(self, worker: WorkerId) -> None:
        self._views.pop(worker, None)
        self._ranking.drop(worker)

    def place(self, wish: Wish) -> WorkerId | None:
        return next((w for w in self._ranking if not obstacle(self._views[w], wish)), None)


class Static:
    """The adapter's only home, however long its queue is."""

    def __init__(self, draw: Draw) -> None:
        self._homes = Homes()

    def update(self, view: WorkerView) -> None:
        if view.draining:
            self._homes.leave(view.id)
        else:
            self._homes.join(view.id, 1.0)

    def remove(self, worker: WorkerId) -> None:
        self._homes.leave(worker)

    def place(self, wish: Wish) -> WorkerId | None:
        return next(iter(self._homes.of(wish.adapter or Digest(""), 1)), None)


class AffinityOnly(LeastLoaded):
    """The least loaded of those that have the adapter, however long their queues are; if none has,
    the least loaded of all."""

    def __init__(self, draw: Draw) -> None:
        super().__init__(draw)
        self._holders: dict[Digest, set[WorkerId]] = {}

    def update(self, view: WorkerView) -> None:
        before = self._views.get(view.id)
        super().update(view)
        had, has = _on_device(before), _on_device(view)
        for adapter in has - had:
            self._holders.setdefault(adapter, set()).add(view.id)
        for adapter in had - has:
            self._holders[adapter].discard(view.id)

    def remove(self, worker: WorkerId) -> None:
        for adapter in _on_device(self._views.get(worker)):
            self._holders[adapter].discard(worker)
        super().remove(worker)

    def place(self, wish: Wish) -> WorkerId | None:
        holders = self._holders.get(wish.adapter, ()) if wish.adapter else ()
        able = [worker for worker in holders if not self._views[worker].draining]
        if able:
            return min(able, key=lambda worker: (self._ranking.key(worker), worker))
        return super().place(wish)


BASELINES: Mapping[str, Callable[[Draw], Placement]] = {
    "random": Random,
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "static": Static,
    "affinity-only": AffinityOnly,
}


def _on_device(view: WorkerView | None) -> frozenset[Digest]:
    return view.resident.union(view.loading) if view else frozenset()
