"""Who asks a big fleet for which adapter, and when: traces for placement."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import accumulate

Rate = Callable[[float], float]  # of the mean, at so many seconds


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. Tenants and adapters are numbers; adapter 0 is the most popular one."""

    at: float
    tenant: int
    adapter: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Shape:
    """`zipf`: the n-th adapter is asked for as 1 / n**zipf. Adapters belong to tenants in turn.
    `per_second`: requests in the mean. Lengths are exponential, at least 1, with these means."""

    adapters: int
    tenants: int
    per_second: float
    seconds: float
    zipf: float = 1.0
    prompt_tokens: int = 256
    output_tokens: int = 200


@dataclass(frozen=True, slots=True)
class Trace:
    """`lost`: seconds at which so large a share of the workers goes away for good."""

    name: str
    shape: Shape
    requests: tuple[Asked, ...]
    lost: Mapping[float, float]


def zipf(random_: random.Random, shape: Shape, *, name: str = "zipf") -> Trace:
    """A steady load."""
    return Trace(name, shape, tuple(_poisson(random_, shape, _steady, _popular(shape))), {})


def flash_crowd(random_: random.Random, shape: Shape) -> Trace:
    """From a third of the time to two thirds, one adapter that nobody knew gets as much again as a
    fifth of all others get."""
    crowd = shape.adapters // 2
    third = shape.seconds / 3
    usual = _poisson(random_, shape, _steady, _popular(shape))
    more = _poisson(
        random_, shape, lambda at: 0.2 if third <= at < 2 * third else 0.0, lambda _, __: crowd
    )
    return Trace("flash crowd", shape, tuple(_merged(usual, more)), {})


def diurnal(random_: random.Random, shape: Shape, *, days: int = 4) -> Trace:
    """Half of the adapters have their noon, three times as busy as their night, at the others'
    midnight: the load is steady, and what it is made of is not."""
    day = shape.seconds / days
    every = _popular(shape)

    def half(odd: int) -> Callable[[random.Random, float], int]:
        return lambda draw, at: every(draw, at) // 2 * 2 + odd

    def rate(phase: float) -> Rate:
        return lambda at: 0.5 + 0.25 * math.sin(2 * math.pi * (at / day + phase))

    streams = (_poisson(random_, shape, rate(odd / 2), half(odd)) for odd in (0, 1))
    return Trace("diurnal", shape, tuple(_merged(*streams)), {})


def worker_loss(random_: random.Random, shape: Shape) -> Trace:
    """A steady load, and half-way a twentieth of the workers is lost at once."""
    requests = tuple(_poisson(random_, shape, _steady, _popular(shape)))
    return Trace("worker loss", shape, requests, {shape.seconds / 2: 0.05})


TRACES: Mapping[str, Callable[[random.Random, Shape], Trace]] = {
    "zipf": zipf,
    "flash crowd": flash_crowd,
    "diurnal": diurnal,
    "worker loss": worker_loss,
}


def _steady(at: float) -> float:
    return 1.0


def _poisson(
    random_: random.Random, shape: Shape, rate: Rate, adapter: Callable[[random.Random, float], int]
) -> Iterator[Asked]:
    """By thinning: `rate` is at most 1."""
    at = random_.expovariate(shape.per_second)
    while at < shape.seconds:
        share = rate(at)
        if share >= 1 or random_.random() < share:
            number = adapter(random_, at)
            yield Asked(
                at,
                number % shape.tenants,
                number,
                1 + int(random_.expovariate(1 / shape.prompt_tokens)),
                1 + int(random_.expovariate(1 / shape.output_tokens)),
            )
        at += random_.expovariate(shape.per_second)


def _popular(shape: Shape) -> Callable[[random.Random, float], int]:
    sums = list(accumulate(number**-shape.zipf for number in range(1, shape.adapters + 1)))
    numbers = range(shape.adapters)
    return lambda draw, _: draw.choices(numbers, cum_weights=sums)[0]


def _merged(*streams: Iterable[Asked]) -> Iterator[Asked]:
    return merge(*streams, key=lambda asked: asked.at)
