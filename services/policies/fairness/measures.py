"""How fair is a gateway while it runs? Service of each tenant, gaps, and indices of a window."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest

from services.core.types import TenantId

OTHER = TenantId("other")


@dataclass(frozen=True, slots=True)
class MeasureKnobs:
    """`named`: tenants that a report names, those with most service; also of how many that wait
    gaps are known, which takes as many squared. `known`: tenants whose service is kept apart; who
    was not served for longest goes to the others. `seconds`: of a window."""

    named: int = 20
    known: int = 100_000
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Indices:
    """Of one window, per second. Who waited all through it is who could have had more: of fewer
    than two the first two say nothing."""

    jain: float | None = None
    dispersion: float | None = None
    """The most less the least."""
    difference: float = 0.0
    """What all tenants lacked of the best served, or of what they asked for if that is less."""


@dataclass(frozen=True, slots=True)
class Fairness:
    """`service`: by tenant, and of all OTHER together; since the start. `gap`: the largest
    difference of the service of two in any time all through which both waited, if it lasted into
    the window before or is of this one. `waiting`: tenants."""

    service: Mapping[TenantId, float]
    gap: float
    waiting: int
    indices: Indices


_Pair = tuple[TenantId, TenantId]  # in the order of their names


@dataclass(slots=True)
class _Moved:
    """How the one's service less the other's has moved since both wait."""

    low: float
    high: float


@dataclass(slots=True)
class _Window:
    since: float
    asked: dict[TenantId, float] = field(default_factory=dict)
    served: dict[TenantId, float] = field(default_factory=dict)


def jain_index(values: Sequence[float]) -> float:
    """1 if all are equal, 1/n if one of n has everything. Raises ValueError if there is nothing."""
    squares = sum(value * value for value in values)
    if not squares:
        raise ValueError("nobody has anything")
    return sum(values) ** 2 / (len(values) * squares)


def service_difference(served: Mapping[TenantId, float], asked: Mapping[TenantId, float]) -> float:
    """For each, what it lacks of the best served or of its own demand, whichever is less; all
    together (OSDI'24, section 5)."""
    best = max(served.values(), default=0.0)
    return sum(min(best - s, abs(asked.get(tenant, 0.0) - s)) for tenant, s in served.items())


class Measures:
    """Is told what happens in order of time. `weight`: what a charge is divided by where its tenant
    is compared with others. A window ends with the first thing that happens after it."""

    def __init__(self, knobs: MeasureKnobs | None = None) -> None:
        self._knobs = knobs or MeasureKnobs()
        self._service: OrderedDict[TenantId, float] = OrderedDict()
        self._other = 0.0
        self._waits_since: dict[TenantId, float] = {}
        self._watched: dict[TenantId, float] = {}  # of those who wait: service since then
        self._pairs: dict[_Pair, _Moved] = {}
        self._gap = 0.0
        self._window: _Window | None = None
        self._indices = Indices()

    def waits(self, tenant: TenantId, now: float) -> None:
        """It has something that waits from now on."""
        self._move_on(now)
        self._waits_since[tenant] = now
        if len(self._watched) < self._knobs.named:
            self._watch(tenant)

    def rests(self, tenant: TenantId, now: float) -> None:
        """Nothing of it waits any more."""
        self._move_on(now)
        del self._waits_since[tenant]
        if self._watched.pop(tenant, None) is None:
            return
        for other in self._watched:
            del self._pairs[_pair(tenant, other)]
        fresh = next((one for one in self._waits_since if one not in self._watched), None)
        if fresh is not None:
            self._watch(fresh)

    def asked(self, tenant: TenantId, charge: float, now: float, weight: float = 1.0) -> None:
        """A request came that would be charged so much if it were served in full."""
        window = self._move_on(now)
        self._add(window.asked, tenant, charge / weight)

    def served(self, tenant: TenantId, charge: float, now: float, weight: float = 1.0) -> None:
        """Below 0: it was given back."""
        window = self._move_on(now)
        even = charge / weight
        self._add(window.served, tenant, even)
        self._service[tenant] = self._service.get(tenant, 0.0) + charge
        self._service.move_to_end(tenant)
        if len(self._service) > self._knobs.known:
            self._other += self._service.popitem(last=False)[1]
        if tenant in self._watched:
            self._watched[tenant] += even
            self._compare(tenant)

    def report(self, now: float) -> Fairness:
        self._move_on(now)
        named = nlargest(self._knobs.named, self._service.items(), key=lambda item: item[1])
        service = dict(named)
        others = sum(self._service.values()) - sum(service.values()) + self._other
        if self._other or len(self._service) > len(named):
            service[OTHER] = others
        return Fairness(service, self._gap, len(self._waits_since), self._indices)

    def _watch(self, tenant: TenantId) -> None:
        self._watched[tenant] = 0.0
        for other in self._watched:
            if other != tenant:
                pair = _pair(tenant, other)
                self._pairs[pair] = _Moved(self._ahead(pair), self._ahead(pair))

    def _compare(self, tenant: TenantId) -> None:
        for other in self._watched:
            if other != tenant:
                pair = _pair(tenant, other)
                ahead, moved = self._ahead(pair), self._pairs[pair]
                moved.low, moved.high = min(moved.low, ahead), max(moved.high, ahead)
                self._gap = max(self._gap, moved.high - moved.low)

    def _ahead(self, pair: _Pair) -> float:
        return self._watched[pair[0]] - self._watched[pair[1]]

    def _move_on(self, now: float) -> _Window:
        """To the window of this moment."""
        window = self._window
        if window is not None and now < window.since + self._knobs.seconds:
            return window
        if window is not None:
            self._indices = self._indices_of(window, now)
            self._gap = max((m.high - m.low for m in self._pairs.values()), default=0.0)
        self._window = _Window(now)
        return self._window

    def _indices_of(self, window: _Window, now: float) -> Indices:
        lasted = now - window.since
        served = {tenant: charge / lasted for tenant, charge in window.served.items()}
        asked = {tenant: charge / lasted for tenant, charge in window.asked.items()}
        difference = service_difference(dict.fromkeys(asked, 0.0) | served, asked)
        even = [
            served.get(tenant, 0.0)
            for tenant, since in self._waits_since.items()
            if since <= window.since
        ]
        if len(even) < 2 or not any(even):
            return Indices(difference=difference)
        return Indices(jain_index(even), max(even) - min(even), difference)

    def _add(self, charges: dict[TenantId, float], tenant: TenantId, charge: float) -> None:
        """Of as many tenants as are known."""
        if tenant in charges or len(charges) < self._knobs.known:
            charges[tenant] = charges.get(tenant, 0.0) + charge


def _pair(one: TenantId, other: TenantId) -> _Pair:
    return (one, other) if one < other else (other, one)
