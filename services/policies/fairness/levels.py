"""Whose a request is, level by level, and what part each has of what there is."""

from collections import Counter

from services.policies.fairness.admission import Request

Levels = tuple[tuple[str, float], ...]  # the highest first: who it is there, and by which weight


def by_tenant(request: Request) -> Levels:
    return ((request.tenant, request.share.weight),)


def by_organisation(request: Request) -> Levels:
    """Organisation, tenant, adapter; a tenant without an organisation is one of its own."""
    share = request.share
    organisation = share.organisation or f"tenant {request.tenant}"
    adapter = request.adapter or ""
    return (organisation, share.top_weight), (request.tenant, share.weight), (adapter, 1.0)


class Parts:
    """Those who wait, by their levels. Looks through all that are different."""

    def __init__(self) -> None:
        self._waiting: Counter[Levels] = Counter()

    def add(self, levels: Levels) -> None:
        self._waiting[levels] += 1

    def remove(self, levels: Levels) -> None:
        self._waiting[levels] -= 1
        if not self._waiting[levels]:
            del self._waiting[levels]

    def before(self, levels: Levels) -> float:
        """How many start before one more with these, if on each level all who wait take turns by
        their weights."""
        part = 1.0
        for depth, (key, weight) in enumerate(levels):
            below = self._below(levels[:depth])
            others = sum(other for name, other in below if name != key)
            part *= weight / (weight + others)
        return min(self._waiting.total(), self._waiting[levels] / part)

    def greediest(self) -> Levels:
        """Who has most waiting for its weight, on the highest level, of those on the next, ..."""
        chosen: Levels = ()
        while chosen not in self._waiting:
            below = self._below(chosen)
            chosen = (*chosen, max(below, key=lambda each: below[each] / each[1]))
        return chosen

    def _below(self, common: Levels) -> Counter[tuple[str, float]]:
        """Those on the next level with these above them, and how many requests each has."""
        depth, found = len(common), Counter[tuple[str, float]]()
        for levels, count in self._waiting.items():
            if levels[:depth] == common:
                found[levels[depth]] += count
        return found
