"""Requests that were refused because their first token would have come too late, by tenant."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from heapq import nlargest

from services.core.errors import TooLate
from services.core.types import TenantId
from services.policies.fairness.measures import OTHER

MOST_KNOWN = 100_000


class Refusals:
    """Since the start. Of so many tenants each is known; who was refused least lately goes to the
    others."""

    def __init__(self, known: int = MOST_KNOWN) -> None:
        self._known = known
        self._counts: OrderedDict[TenantId, int] = OrderedDict()
        self._other = 0

    @contextmanager
    def counted(self, tenant: TenantId) -> Iterator[None]:
        """Around a request of this tenant's."""
        try:
            yield
        except TooLate:
            self.note(tenant)
            raise

    def note(self, tenant: TenantId) -> None:
        self._counts[tenant] = self._counts.get(tenant, 0) + 1
        self._counts.move_to_end(tenant)
        if len(self._counts) > self._known:
            self._other += self._counts.popitem(last=False)[1]

    def most(self, named: int) -> Mapping[str, int]:
        """So many tenants, the most refused first, and all OTHER together if there are any."""
        first: dict[str, int] = dict(
            nlargest(named, self._counts.items(), key=lambda item: item[1])
        )
        others = self._other + sum(self._counts.values()) - sum(first.values())
        return {**first, OTHER: others} if others else first
