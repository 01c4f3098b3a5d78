"""How long will an output be? Charged when a request starts, refunded when it was wrong."""

from typing import Protocol

from services.core.types import TenantId
from services.policies.fairness.admission import Request

OLD, NEW = 4 / 5, 1 / 5  # of the moving average, as VTC has it (OSDI'24, section 4.4)


class Lengths(Protocol):
    def predict(self, request: Request) -> float:
        """Tokens of output."""
        ...

    def learn(self, request: Request, output_tokens: int) -> None: ...


class MovingAverages:
    """Each tenant's own. Who is new is taken for the average of all, not for one that asks for
    nothing; the very first for one that uses up what it may."""

    def __init__(self) -> None:
        self._averages: dict[TenantId, float] = {}
        self._all: float | None = None

    def predict(self, request: Request) -> float:
        known = self._averages.get(request.tenant, self._all)
        return request.max_tokens if known is None else min(known, request.max_tokens)

    def learn(self, request: Request, output_tokens: int) -> None:
        before = self._averages.get(request.tenant, self._all)
        known = output_tokens if before is None else OLD * before + NEW * output_tokens
        self._averages[request.tenant] = known
        self._all = known if self._all is None else OLD * self._all + NEW * known
