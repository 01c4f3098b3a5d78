"""Who asks for what, and when: streams of requests, and the times of their arrivals."""

import heapq
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, repeat, takewhile

from services.core.types import Digest, RequestId, TenantId
from services.policies.fairness.admission import Request

Lengths = Iterable[tuple[int, int]]  # tokens of prompt and output, a pair a request
EVEN: Lengths = repeat((256, 256))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes after so many seconds and makes just so many tokens, unless its tenant
    withdraws it at `cancel_at`. Raises ValueError if it would end before it comes."""

    at: float
    request: Request
    output_tokens: int
    cancel_at: float | None = None

    def __post_init__(self) -> None:
        if self.output_tokens < 1 or self.request.prompt_tokens < 1:
            raise ValueError("a request has at least one token of prompt and one of output")
        if self.cancel_at is not None and self.cancel_at < self.at:
            raise ValueError("a request was cancelled before it came")


def arrivals(
    tenant: str,
    times: Iterable[float],
    lengths: Lengths = EVEN,
    adapter: Digest | None = None,
) -> list[Arrival]:
    """A tenant's requests; a policy is told their true length. `times`: seconds, in order."""
    return [
        Arrival(
            at,
            Request(RequestId(f"{tenant}-{number}"), TenantId(tenant), prompt, output, adapter),
            output,
        )
        for number, (at, (prompt, output)) in enumerate(zip(times, lengths, strict=False))
    ]


def merged(*streams: Iterable[Arrival]) -> list[Arrival]:
    """By time; of those that come at once, the first stream's first."""
    return list(heapq.merge(*streams, key=lambda arrival: arrival.at))


def constant(
    per_second: float, seconds: float, *, start: float = 0.0, phase: float = 0.5
) -> list[float]:
    """`phase`: how much of an interval passes before the first, so that tenants of one rate need
    not come at the same instant."""
    return list(_before(start + seconds, (start + (n + phase) / per_second for n in count())))


def poisson(per_second: float, seconds: float, random_: random.Random) -> list[float]:
    def times() -> Iterator[float]:
        at = 0.0
        while True:
            at += random_.expovariate(per_second)
            yield at

    return list(_before(seconds, times()))


def on_off(
    per_second: float, seconds: float, *, span: float = 60.0, phase: float = 0.5
) -> list[float]:
    """At a constant rate for a span, then nothing for a span."""
    times = constant(per_second, seconds, phase=phase)
    return [at for at in times if at // span % 2 == 0]


def ramp(first: float, last: float, seconds: float, *, phase: float = 0.5) -> list[float]:
    """A rate that grows, or falls, from `first` to `last` a second, linearly."""
    slope = (last - first) / seconds
    if not slope:
        return constant(first, seconds, phase=phase)
    total = (first + last) / 2 * seconds
    # By `at` there have been first * at + slope / 2 * at**2 of them.
    return [
        (math.sqrt(max(0.0, first**2 + 2 * slope * wanted)) - first) / slope
        for wanted in _before(total, (n + phase for n in count()))
    ]


def _before(end: float, times: Iterator[float]) -> Iterator[float]:
    return takewhile(lambda at: at < end, times)
