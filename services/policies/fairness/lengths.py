"""How long will an output be? Charged when a request starts, refunded when it was wrong."""

from collections import OrderedDict
from typing import Protocol

from services.core.types import TenantId
from services.policies.fairness.admission import Request

OLD, NEW = 4 / 5, 1 / 5  # of the moving average, as VTC has it (OSDI'24, section 4.4)
MOST_TENANTS = 100_000  # whose averages are kept


class Lengths(Protocol):
    def predict(self, request: Request) -> float:
        """Tokens of output."""
        ...

    def learn(self, request: Request, output_tokens: int) -> None: ...


class MovingAverages:
    """Each tenant's own. Who is new, or was not seen for long, is taken for the average of all, not
    for one that asks for nothing; the very first for one that uses up what it may."""

    def __init__(self, most_tenants: int = MOST_TENANTS) -> None:
        self._most_tenants = most_tenants
        self._averages: OrderedDict[TenantId, float] = OrderedDict()
        self._all: float | None = None

    def predict(self, request: Request) -> float:
        known = self._averages.get(request.tenant, self._all)
        return request.max_tokens if known is None else min(known, request.max_tokens)

    def learn(self, request: Request, output_tokens: int) -> None:
        before = self._averages.get(request.tenant, self._all)
        known = output_tokens if before is None else OLD * before + NEW * output_tokens
        self._averages[request.tenant] = known
        self._averages.move_to_end(request.tenant)
        if len(self._averages) > self._most_tenants:
            self._averages.popitem(last=False)
        self._all = known if self._all is None else OLD * self._all + NEW * known
