"""Whose a request is, level by level, and what part each has of what there is."""

from collections import Counter

from services.policies.fairness.admission import Request

Level = tuple[str, float]  # who it is there, and by which weight
Levels = tuple[Level, ...]  # the highest first


def by_tenant(request: Request) -> Levels:
    return ((request.tenant, request.share.weight),)


def by_organisation(request: Request) -> Levels:
    """Organisation, tenant, adapter; a tenant without an organisation is one of its own."""
    share = request.share
    organisation = share.organisation or f"tenant {request.tenant}"
    adapter = request.adapter or ""
    return (organisation, share.top_weight), (request.tenant, share.weight), (adapter, 1.0)


NOBODY: Counter[Level] = Counter()


class Parts:
    """Those who wait, by their levels. Looks through those who have the same above them, and no
    others."""

    def __init__(self) -> None:
        self._below: dict[Levels, Counter[Level]] = {}

    def add(self, levels: Levels) -> None:
        for depth, level in enumerate(levels):
            self._below.setdefault(levels[:depth], Counter())[level] += 1

    def remove(self, levels: Levels) -> None:
        for depth, level in enumerate(levels):
            below = self._below[levels[:depth]]
            below[level] -= 1
            if not below[level]:
                del below[level]
            if not below:
                del self._below[levels[:depth]]

    def before(self, levels: Levels) -> float:
        """How many start before one more with these, if on each level all who wait take turns by
        their weights."""
        part, waiting = 1.0, 0
        for depth, (key, weight) in enumerate(levels):
            below = self._below.get(levels[:depth], NOBODY)
            waiting = below.get((key, weight), 0)
            others = sum(other for name, other in below if name != key)
            part *= weight / (weight + others)
        return min(self._below.get((), NOBODY).total(), waiting / part)

    def greediest(self) -> Levels:
        """Who has most waiting for its weight, on the highest level, of those on the next, ..."""
        chosen: Levels = ()
        while below := self._below.get(chosen):
            chosen = (*chosen, max(below, key=lambda each: below[each] / each[1]))
        return chosen
