"""Who got which part of the service, and whether that is what was claimed of a policy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from bench.tenants import Client, Promise
from services.core.types import Tier
from services.policies.fairness.tiers import WEIGHTS

COUNTED = ("vtc", "vtc-predict", "vtc-adapter")
WIDE = 0.03  # that a half may be off


@dataclass(frozen=True, slots=True)
class Outcome:
    """`shares` of the service, in the order of the tenants. `gap`: the most that the service of two
    moved apart, as clients see it, and as the gateway says; `bound`: what the policy promises of
    it, 2 (U + Q), if anything. `first_token`: the median of the last tenant, in seconds."""

    policy: str
    shares: tuple[float, ...]
    gap: float
    gap_by_gateway: float
    bound: float | None
    first_token: float
    tokens_per_second: float
    refused: int

    @property
    def row(self) -> dict[str, Any]:
        return asdict(self) | {"shares": " ".join(f"{share:.3f}" for share in self.shares)}


@dataclass(frozen=True, slots=True)
class Claim:
    """`value` is to be at least or at most so much; None: it does not matter."""

    claim: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def row(self) -> dict[str, Any]:
        return asdict(self) | {"holds": "yes" if self._holds else "no"}

    @property
    def _holds(self) -> bool:
        is_low = self.at_least is not None and self.value < self.at_least
        return not is_low and (self.at_most is None or self.value <= self.at_most)


def measured(
    policy: str, clients: Sequence[Client], promise: Promise, window: tuple[float, float]
) -> Outcome:
    given = [client.service(*window) for client in clients]
    tokens = sum(client.output_tokens(*window) for client in clients)
    return Outcome(
        policy=policy,
        shares=tuple(amount / max(1, sum(given)) for amount in given),
        gap=max(_moved_apart(*pair, window) for pair in combinations(clients, 2)),
        gap_by_gateway=promise.gap,
        bound=promise.bound,
        first_token=clients[-1].first_token(*window),
        tokens_per_second=tokens / (window[1] - window[0]),
        refused=sum(client.refused for client in clients),
    )


def _moved_apart(one: Client, other: Client, window: tuple[float, float]) -> int:
    """The highest less the lowest of the difference of what they got in the window."""
    signed = [(at, amount) for at, amount in one.served] + [(at, -a) for at, a in other.served]
    apart, low, high = 0, 0, 0
    for at, amount in sorted(signed):
        if window[0] <= at < window[1]:
            apart += amount
            low, high = min(low, apart), max(high, apart)
    return high - low


Outcomes = Mapping[str, Outcome]


def two(of: Outcomes) -> Iterator[Claim]:
    yield from _halves(of, COUNTED)
    yield Claim("gap, fcfs over vtc", of["fcfs"].gap / of["vtc"].gap, at_least=3)
    for policy in COUNTED:
        ratio = of[policy].tokens_per_second / of["fcfs"].tokens_per_second
        yield Claim(f"tokens a second, {policy} over fcfs", ratio, at_least=0.95)
    yield from _within_bounds(of)


def flood(of: Outcomes) -> Iterator[Claim]:
    ratio = of["vtc"].first_token / of["fcfs"].first_token
    yield Claim("first token of the light one, vtc over fcfs", ratio, at_most=0.3)


def weights(of: Outcomes) -> Iterator[Claim]:
    """Of 1, 2, 3 and 4."""
    for number, share in enumerate(of["vtc"].shares, 1):
        yield Claim(
            f"share of weight {number}, over {number / 10}", share * 10 / number, 0.95, 1.05
        )


def late(of: Outcomes) -> Iterator[Claim]:
    """In its first time, as long as the other had been alone."""
    yield Claim("share of who joins late, vtc", of["vtc"].shares[-1], 0.35, 0.55)
    yield Claim("share of who joins late, lcf", of["lcf"].shares[-1], at_least=0.7)
    yield from _within_bounds(of)


def adapters(of: Outcomes) -> Iterator[Claim]:
    yield from _halves(of, ("vtc", "vtc-adapter"))
    for other in ("vtc", "fcfs"):
        ratio = of["vtc-adapter"].tokens_per_second / of[other].tokens_per_second
        yield Claim(f"tokens a second, vtc-adapter over {other}", ratio, at_least=1)
    yield from _within_bounds(of)


def tiers(of: Outcomes) -> Iterator[Claim]:
    """Of 16, 4 and 1."""
    for tier, share in zip(Tier, of["vtc"].shares, strict=True):
        part = WEIGHTS[tier] / sum(WEIGHTS.values())
        yield Claim(f"share of {tier.value}, over {part:.3f}", share / part, 0.85, 1.15)


CLAIMS: Mapping[str, Callable[[Outcomes], Iterator[Claim]]] = {
    "two": two,
    "flood": flood,
    "weights": weights,
    "late": late,
    "adapters": adapters,
    "tiers": tiers,
}


def _halves(of: Outcomes, policies: Sequence[str]) -> Iterator[Claim]:
    for policy in policies:
        share = of[policy].shares[0]
        yield Claim(f"share of the greedy one, {policy}", share, 0.5 - WIDE, 0.5 + WIDE)


def _within_bounds(of: Outcomes) -> Iterator[Claim]:
    for outcome in of.values():
        if outcome.bound is not None:
            part = max(outcome.gap, outcome.gap_by_gateway) / outcome.bound
            yield Claim(f"gap over its bound, {outcome.policy}", part, at_most=1)
