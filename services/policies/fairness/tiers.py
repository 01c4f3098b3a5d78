"""Tiers of service: each has its part of what there is, and in each a policy says who is next."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping

from services.core.types import AdapterWait, Digest, RequestId, Tier
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.policies.fairness.clearing import Branch
from services.policies.fairness.cost import Cost, WeightedTokens
from services.policies.fairness.counters import Counters

WEIGHTS: Mapping[Tier, float] = {Tier.PRIORITY: 16.0, Tier.DEFAULT: 4.0, Tier.FLEX: 1.0}
_RANKS = {tier: rank for rank, tier in enumerate(Tier)}


class Tiers:
    """An AdmissionPolicy made of one for each tier.

    Tiers have weighted virtual counters (VTC, OSDI'24, 4.3), as tenants have in them: one that asks
    for less than its part is next as soon as it asks, one that asks for more starves nobody, and
    what one does not use the others have. Who is first in the tier whose turn it is, and does not
    fit, is not overtaken by other tiers.
    """

    def __init__(
        self,
        policy: Callable[[Tier], AdmissionPolicy],
        weights: Mapping[Tier, float] = WEIGHTS,
        cost: Cost | None = None,
    ) -> None:
        self._policy = policy
        self._weights = weights
        self._cost = cost or WeightedTokens()
        self._policies: dict[Tier, AdmissionPolicy] = {}  # of those that were asked for
        self._counters = Counters(forget=lambda tier: None)
        self._waiting: dict[RequestId, Request] = {}
        self._queued: dict[Tier, int] = {}  # requests that wait
        self._running: dict[RequestId, tuple[Request, int]] = {}  # and tokens of output

    @property
    def counters(self) -> dict[str, float]:
        """Of tiers in which somebody waits."""
        return self._counters.waiting

    def branch(self, gateway: str) -> Branch:
        """Makes the tiers' counters one account with those of other gateways."""
        return Branch(gateway, self._counters)

    def enqueue(self, request: Request, now: float) -> None:
        tier = request.tier
        if tier not in self._policies:
            self._policies[tier] = self._policy(tier)
        self._policies[tier].enqueue(request, now)
        self._waiting[request.id] = request
        self._queued[tier] = self._queued.get(tier, 0) + 1
        if self._queued[tier] == 1:
            self._counters.join(tier.value)

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        """Of the tier with the least that has any; of two that had the same, the higher."""
        for tier in self._ranked():
            found = False
            for request in self._policies[tier].candidates(now, resident):
                found = True
                yield request
            if found:
                return

    def admit(self, request: RequestId, now: float) -> None:
        admitted = self._waiting[request]
        self._policies[admitted.tier].admit(request, now)
        self._counters.started(admitted.tier.value)
        self._running[request] = (admitted, 0)
        self._charge(admitted, self._cost(admitted.prompt_tokens, 0))
        self._leave(request)

    def awaited(self, wait: AdapterWait, now: float) -> None:
        """A load costs all of them time."""
        for policy in self._policies.values():
            policy.awaited(wait, now)

    def owed(self, request: RequestId) -> float:
        """In its tier."""
        running = self._running.get(request)
        known = self._waiting.get(request) or (running[0] if running else None)
        return 0.0 if known is None else self._policies[known.tier].owed(request)

    def produced(self, request: RequestId, tokens: int = 1) -> None:
        running, before = self._running[request]
        self._policies[running.tier].produced(request, tokens)
        self._running[request] = (running, before + tokens)
        after = self._cost(running.prompt_tokens, before + tokens)
        self._charge(running, after - self._cost(running.prompt_tokens, before))

    def end(self, request: RequestId) -> None:
        if request in self._waiting:
            self._policies[self._waiting[request].tier].end(request)
            self._leave(request)
        elif request in self._running:
            running, _ = self._running.pop(request)
            self._policies[running.tier].end(request)
            self._counters.ended(running.tier.value)

    def _ranked(self) -> list[Tier]:
        """Those in which somebody waits."""
        if len(self._queued) < 2:  # as nearly always: spare the heap
            return list(self._queued)
        return sorted(self._queued, key=lambda tier: (self._counters.of(tier.value), _RANKS[tier]))

    def _charge(self, request: Request, amount: float) -> None:
        self._counters.charge(request.tier.value, amount / self._weights[request.tier])

    def _leave(self, request: RequestId) -> None:
        tier = self._waiting.pop(request).tier
        self._queued[tier] -= 1
        if not self._queued[tier]:
            del self._queued[tier]
            self._counters.leave(tier.value)


def by_tier(text: str) -> dict[Tier, float]:
    """Numbers above 0 by tier, from "priority=2,flex=1". Raises ValueError."""
    numbers: dict[Tier, float] = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.partition("=")
        tier = Tier(name.strip())
        if tier in numbers or not 0 < float(number) < math.inf:
            raise ValueError(f"{part.strip()!r}: each tier once, with a number above 0")
        numbers[tier] = float(number)
    return numbers
