"""How many homes each adapter has: more when it is hot, fewer when it has long been cold.

It grows on what chance does not explain, with room to spare; it shrinks late and by a wide margin:
so a steady load changes nothing, and one that comes and goes changes little.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from services.core.types import Digest
from services.policies.placement.heat import Heat


@dataclass(frozen=True, slots=True)
class Rules:
    """`share`: of a worker that an adapter may take before it gets another. `spare`: by which it
    gets more than it needs. `margin`: of what one fewer would carry, below which it has one fewer.
    `deviations`: of chance, that growth discounts. `least_seconds`: that a number holds before it
    falls. `most`: homes of an adapter."""

    share: float = 0.5
    spare: float = 1.25
    margin: float = 0.6
    deviations: float = 2.0
    fast_seconds: float = 30.0
    slow_seconds: float = 300.0
    least_seconds: float = 60.0
    most: int = 64
    remembered: int = 200_000  # adapters, beyond which who was idle longest is forgotten

    def __post_init__(self) -> None:
        if not 0 < self.margin * self.spare < 1 <= self.spare:
            raise ValueError("margin * spare must be below 1: else what grew shrinks at once")
        if not 0 < self.share <= 1 or self.most < 1 or self.remembered < 1:
            raise ValueError("share must be in (0, 1], most and remembered at least 1")
        if not 0 < self.fast_seconds <= self.slow_seconds or self.least_seconds < 0:
            raise ValueError("fast_seconds must be above 0 and at most slow_seconds")


@dataclass(slots=True)
class _Many:
    """Homes of an adapter that has more than one."""

    count: int
    since: float


class Replicas:
    def __init__(self, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._heats: OrderedDict[Digest, Heat] = OrderedDict()  # who was asked for last is last
        self._many: dict[Digest, _Many] = {}
        self._pins: dict[Digest, int] = {}

    def arrived(self, adapter: Digest, now: float, busy_ms: float, times: int = 1) -> None:
        """Requests came. `busy_ms`: of one worker's whole capacity that each takes. Raises
        ValueError."""
        if busy_ms < 0 or times < 0:
            raise ValueError("what came cannot be negative")
        rules = self._rules
        heat = self._heats.pop(adapter, None) or Heat(now)
        self._heats[adapter] = heat
        heat.add(times, busy_ms / 1000, now, fast=rules.fast_seconds, slow=rules.slow_seconds)
        surely = heat.surely(rules.deviations)
        if surely > rules.share * self._carried(adapter):
            self._many[adapter] = _Many(self._wanted(surely), now)
        self._forget(now)

    def settle(self, now: float) -> Mapping[Digest, int]:
        """Counts that changed because there is less to do. To be asked about once a second."""
        fallen: dict[Digest, int] = {}
        for adapter, many in list(self._many.items()):
            heat = self._heats[adapter]
            heat.decay(now, fast=self._rules.fast_seconds, slow=self._rules.slow_seconds)
            fewer = self._rules.share * (many.count - 1) * self._rules.margin
            if now - many.since >= self._rules.least_seconds and heat.most < fewer:
                many.count, many.since = min(many.count - 1, self._wanted(heat.most)), now
                fallen[adapter] = self.count(adapter)
                if many.count == 1:
                    del self._many[adapter]
        return fallen

    def count(self, adapter: Digest) -> int:
        """At least 1."""
        many = self._many.get(adapter)
        return max(1, self._pins.get(adapter, 0), many.count if many else 1)

    def counts(self) -> dict[Digest, int]:
        """Of those that have more than one."""
        every = {adapter: self.count(adapter) for adapter in self._many.keys() | self._pins}
        return {adapter: count for adapter, count in every.items() if count > 1}

    def pin(self, adapter: Digest, count: int) -> None:
        """It has so many at least, used or not, until 0 are said. Raises ValueError."""
        if count < 0:
            raise ValueError("an adapter cannot be pinned to fewer than 0 workers")
        self._pins.pop(adapter, None)
        if count:
            self._pins[adapter] = count

    @property
    def known(self) -> int:
        """Adapters that are remembered."""
        return len(self._heats)

    def _carried(self, adapter: Digest) -> int:
        """Homes that it has for its load; at the most, no load is too much."""
        many = self._many.get(adapter)
        count = many.count if many else 1
        return count if count < self._rules.most else 1 << 60

    def _wanted(self, workers: float) -> int:
        """By an adapter that keeps so many busy."""
        needed = math.ceil(workers * self._rules.spare / self._rules.share)
        return max(1, min(self._rules.most, needed))

    def _forget(self, now: float) -> None:
        """Two at a time at most, and each arrival brings one: so the idle go."""
        for _ in range(2):
            adapter, heat = next(iter(self._heats.items()))
            idle = now - heat.at > 5 * self._rules.slow_seconds
            if adapter in self._many or not (idle or len(self._heats) > self._rules.remembered):
                return
            del self._heats[adapter]
