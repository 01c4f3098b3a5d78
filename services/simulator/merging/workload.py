"""Demand for a few adapters of one replica: as popular as Zipf has it, or in bursts of one."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from services.core.types import Digest, RequestId, TenantId
from services.policies.fairness.admission import Request
from services.simulator.arrivals import Arrival, poisson
from services.simulator.early.workload import adapter_names


@dataclass(frozen=True, slots=True)
class Popularity:
    """`skew`: Zipf's exponent; 0 is uniform. `burst_seconds`: if above 0, every other stretch of
    so many seconds nine of ten requests are of one adapter, drawn anew."""

    per_second: float = 4.0
    adapters: int = 8
    seconds: float = 120.0
    skew: float = 0.0
    burst_seconds: float = 0.0


def demand(random_: random.Random, asked: Popularity) -> list[Arrival]:
    """Lengths are log-normal and clipped, as those of ShareGPT's conversations are. Every adapter
    is another tenant's."""
    names = adapter_names(asked.adapters)
    weights = [(rank + 1) ** -asked.skew for rank in range(asked.adapters)]
    hot = _bursts(random_, asked)
    coming = []
    for number, at in enumerate(poisson(asked.per_second, asked.seconds, random_)):
        [place] = random_.choices(range(asked.adapters), weights)
        favourite = hot(at)
        if favourite is not None and random_.random() < 0.9:
            place = favourite
        prompt = min(max(round(random_.lognormvariate(4.6, 1.2)), 4), 1024)
        output = min(max(round(random_.lognormvariate(4.85, 1.0)), 4), 2048 - prompt)
        coming.append(_arrival(number, at, names[place], prompt, output))
    return coming


def one_cold(*, overload: float, seats: int, step_ms: float, seconds: float) -> list[Arrival]:
    """One adapter is asked for `overload` times as much as could run, another every ten seconds."""
    hot, cold = adapter_names(2)
    output, prompt = 100, 20
    rate = overload * seats * 1000 / step_ms / output
    coming = [(number / rate, hot) for number in range(int(rate * seconds))]
    coming += [(5.0 + 10.0 * number, cold) for number in range(int(seconds / 10))]
    return [
        _arrival(number, at, adapter, prompt, output)
        for number, (at, adapter) in enumerate(sorted(coming))
    ]


def _arrival(number: int, at: float, adapter: Digest, prompt: int, output: int) -> Arrival:
    id_, tenant = RequestId(str(number)), TenantId(adapter[-4:])
    return Arrival(at, Request(id_, tenant, prompt, output, adapter), output)


def _bursts(random_: random.Random, asked: Popularity) -> Callable[[float], int | None]:
    if not asked.burst_seconds:
        return lambda _: None
    spans = int(asked.seconds / asked.burst_seconds) + 1
    drawn = [random_.randrange(asked.adapters) if span % 2 else None for span in range(spans)]
    return lambda at: drawn[int(at / asked.burst_seconds)]
