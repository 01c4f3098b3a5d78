"""What is wanted of the fleet, as gateways say it."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.core.clock import Clock
from services.core.types import Digest, Fingerprint, RequestId, TenantId
from services.policies.migration.loads import Debts

RATE_SECONDS = 60.0  # that requests a minute look back
_COLD = 1e-3  # requests a minute, below which an adapter is forgotten


@dataclass(frozen=True, slots=True)
class Demand:
    """Of a base model, at a gateway or everywhere; see ReportDemandRequest. `arrived`: by adapter,
    "" for the base model."""

    base_model: str = ""
    waiting: int = 0
    longest_wait_seconds: float = 0.0
    in_time: float = 1.0
    arrived: Mapping[Digest, int] | None = None
    debts: Sequence["TenantDebt"] = ()


@dataclass(frozen=True, slots=True)
class TenantDebt:
    """Service by which a tenant is behind others at a gateway, and what it has running there."""

    tenant: TenantId
    owed: float
    requests: Sequence[RequestId]


class Demands:
    """A gateway that has been silent for `lease_seconds` wants nothing."""

    def __init__(self, clock: Clock, *, lease_seconds: float) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._said: dict[tuple[Fingerprint, str], tuple[Demand, float]] = {}
        self._rates: defaultdict[Digest, _Rate] = defaultdict(_Rate)
        self._swept_at = clock.now()

    def say(self, base: Fingerprint, gateway: str, demand: Demand) -> None:
        now = self._clock.now()
        self._said[base, gateway] = demand, now
        for adapter, count in (demand.arrived or {}).items():
            self._rates[adapter].add(count, now)

    def requests_per_minute(self, adapter: Digest) -> float:
        """Those that came of late."""
        rate = self._rates.get(adapter)
        return rate.per_minute(self._clock.now()) if rate is not None else 0.0

    def by_base(self) -> dict[Fingerprint, Demand]:
        """All gateways together."""
        self._forget()
        said: defaultdict[Fingerprint, list[Demand]] = defaultdict(list)
        for (base, _), (demand, _) in self._said.items():
            said[base].append(demand)
        return {base: _together(demands) for base, demands in said.items()}

    def debts(self) -> Debts:
        """As the gateways that are not silent say it. Counters are theirs together: of what two say
        of a tenant the most holds, for its requests at either."""
        self._forget()
        said = [(base, debt) for (base, _), (d, _) in self._said.items() for debt in d.debts]
        owed: defaultdict[tuple[Fingerprint, TenantId], float] = defaultdict(float)
        for base, debt in said:
            owed[base, debt.tenant] = max(owed[base, debt.tenant], debt.owed)
        return Debts(
            {request: owed[base, debt.tenant] for base, debt in said for request in debt.requests}
        )

    def _forget(self) -> None:
        now = self._clock.now()
        oldest = now - self._lease_seconds
        self._said = {who: said for who, said in self._said.items() if said[1] >= oldest}
        if now - self._swept_at < RATE_SECONDS:
            return
        self._swept_at = now
        for adapter in [a for a, rate in self._rates.items() if rate.per_minute(now) < _COLD]:
            del self._rates[adapter]


@dataclass(slots=True)
class _Rate:
    """An exponentially weighted average."""

    count: float = 0.0
    at: float = -math.inf

    def add(self, count: int, now: float) -> None:
        self.count = self._left(now) + count
        self.at = now

    def per_minute(self, now: float) -> float:
        return self._left(now) * 60 / RATE_SECONDS

    def _left(self, now: float) -> float:
        return self.count * math.exp((self.at - now) / RATE_SECONDS) if self.count else 0.0


def _together(demands: list[Demand]) -> Demand:
    """Shares in time weigh as much as requests came there."""
    counts = [sum((demand.arrived or {}).values()) for demand in demands]
    shares = zip(demands, counts, strict=True)
    in_time = sum(demand.in_time * count for demand, count in shares)
    return Demand(
        base_model=next((demand.base_model for demand in demands if demand.base_model), ""),
        waiting=sum(demand.waiting for demand in demands),
        longest_wait_seconds=max(demand.longest_wait_seconds for demand in demands),
        in_time=in_time / sum(counts) if sum(counts) else 1.0,
    )
