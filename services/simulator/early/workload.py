"""Demand that drifts: which adapters are asked for is drawn anew every minute."""

import random
from dataclasses import dataclass
from itertools import accumulate

from services.core.types import Digest, RequestId, TenantId
from services.policies.fairness.admission import Request
from services.simulator.arrivals import Arrival, poisson


@dataclass(frozen=True, slots=True)
class Bursts:
    """`evenness`: of the weights that are drawn (the shape of a gamma distribution, 1 to 10 from
    few that want all to many that want the same). `length_ratio`: how much more tokens the odd
    adapters make than the even ones, at the same mean. Of one tenant an adapter."""

    per_second: float
    adapters: int = 32
    seconds: float = 200.0
    every: float = 60.0
    evenness: float = 0.25
    length_ratio: float = 1.0


def adapter_names(count: int) -> list[Digest]:
    return [Digest(f"{number:064x}") for number in range(count)]


def bursts(random_: random.Random, asked: Bursts) -> list[Arrival]:
    """Lengths are log-normal and clipped, as those of ShareGPT's conversations are: up to 1024
    tokens of prompt and 2048 in all."""
    names = adapter_names(asked.adapters)
    times = poisson(asked.per_second, asked.seconds, random_)
    spans = int(asked.seconds // asked.every) + 1
    weights = [
        list(accumulate(random_.gammavariate(asked.evenness, 1) for _ in names))
        for _ in range(spans)
    ]
    short = 2 / (1 + asked.length_ratio)
    coming = []
    for number, at in enumerate(times):
        [place] = random_.choices(range(len(names)), cum_weights=weights[int(at // asked.every)])
        scale = short * (asked.length_ratio if place % 2 else 1)
        prompt = min(max(round(random_.lognormvariate(4.6, 1.2)), 4), 1024)
        output = min(max(round(scale * random_.lognormvariate(4.85, 1.0)), 4), 2048 - prompt)
        tenant = TenantId(str(place))
        request = Request(RequestId(str(number)), tenant, prompt, output, names[place])
        coming.append(Arrival(at, request, output))
    return coming
