"""The workloads that VTC was measured with (OSDI'24, section 5), by the names of its artifact, and
one of many adapters."""

import random
from collections.abc import Callable, Iterator
from itertools import chain, repeat

from services.core.types import Digest
from services.simulator.arrivals import (
    Arrival,
    arrivals,
    constant,
    merged,
    on_off,
    poisson,
    ramp,
)

# Requests of the 27 tenants in ten minutes of the LMSYS Arena trace: the artifact's first five and
# its last, and between them what comes to its total of 1500.
ARENA_COUNTS = (
    296, 262, 199, 120, 67,
    66, 62, 57, 53, 48, 44, 39, 35, 31, 27, 23, 19, 15, 12, 9, 6, 4, 2,
    1, 1, 1, 1,
)  # fmt: skip


def steady(*rates: float, seconds: float = 600.0) -> list[Arrival]:
    """Tenants "1", "2", ... at constant rates (requests a second), 256 tokens in and out. No two
    of a rate come at the same instant."""
    phases = [(place + 0.5) / len(rates) for place in range(len(rates))]
    return merged(
        *(
            arrivals(str(number), constant(rate, seconds, phase=phase))
            for number, (rate, phase) in enumerate(zip(rates, phases, strict=True), 1)
        )
    )


def overload(seconds: float = 600.0) -> list[Arrival]:
    """Two tenants that each ask for more than their half."""
    return steady(1.5, 3, seconds=seconds)


def proportional(seconds: float = 600.0) -> list[Arrival]:
    """Two tenants that ask for less than their part, and one for more."""
    return steady(0.25, 0.5, 1.5, seconds=seconds)


def overload_multi(seconds: float = 600.0) -> list[Arrival]:
    """Eight tenants, all above their part."""
    return steady(0.4, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6, seconds=seconds)


def weighted(seconds: float = 600.0) -> list[Arrival]:
    """Four tenants that would each take more than two fifths, for weights of 1:2:3:4."""
    return steady(1, 1, 1, 1, seconds=seconds)


def on_off_less(seconds: float = 600.0) -> list[Arrival]:
    """A tenant that comes and goes and stays below its part, beside one that is always above."""
    return merged(
        arrivals("1", on_off(0.5, seconds)), arrivals("2", constant(2, seconds, phase=0.6))
    )


def on_off_overload(seconds: float = 600.0) -> list[Arrival]:
    """A tenant that comes and goes, and is above its part when it is there."""
    return merged(arrivals("1", on_off(2, seconds)), arrivals("2", constant(3, seconds, phase=0.6)))


def increase(seconds: float = 600.0) -> list[Arrival]:
    """A tenant below its part, and one that grows beyond its own."""
    return merged(arrivals("1", constant(0.5, seconds)), arrivals("2", ramp(0.2, 2, seconds)))


def dist_shift(seconds: float = 900.0) -> list[Arrival]:
    """Three thirds: on and off beside overload, overload by both, and one below its part."""
    third = seconds / 3
    first = chain(
        on_off(0.5, third),
        constant(1, third, start=third),
        constant(0.5, third, start=2 * third),
    )
    second = chain(
        constant(2, third, phase=0.6),
        constant(1, third, start=third, phase=0.6),
        constant(1.5, third, start=2 * third, phase=0.6),
    )
    return merged(arrivals("1", first), arrivals("2", second))


def poisson_short_long(random_: random.Random, seconds: float = 600.0) -> list[Arrival]:
    """Many short requests beside few long ones."""
    return _two_poisson(random_, seconds, (64, 64), (256, 256))


def poisson_short_long_2(random_: random.Random, seconds: float = 600.0) -> list[Arrival]:
    """Long prompts with short answers beside short prompts with long answers."""
    return _two_poisson(random_, seconds, (512, 32), (32, 512))


def arena(
    random_: random.Random, requests_per_minute: float, seconds: float = 600.0
) -> list[Arrival]:
    """27 tenants with parts as in the Arena trace, at random times; the artifact's own has 150 a
    minute. Lengths are log-normal, clipped to the trace's range, with its means 136 and 256."""
    scale = requests_per_minute * seconds / 60 / sum(ARENA_COUNTS)
    return merged(
        *(
            arrivals(
                str(number),
                sorted(random_.uniform(0, seconds) for _ in range(max(1, round(scale * most)))),
                _arena_lengths(random_),
            )
            for number, most in enumerate(ARENA_COUNTS, 1)
        )
    )


def many_adapters(
    random_: random.Random,
    *,
    tenants: int = 32,
    zipf: float | None = None,
    per_second: float,
    seconds: float,
) -> list[Arrival]:
    """Tenants "1", "2", ... with an adapter each, at random times, 128 tokens in and out.
    `per_second`: of all together, in equal parts, or the n-th's as 1 / n**zipf."""
    parts = [number ** -(zipf or 0.0) for number in range(1, tenants + 1)]
    return merged(
        *(
            arrivals(
                str(number),
                poisson(per_second * part / sum(parts), seconds, random_),
                repeat((128, 128)),
                Digest(f"{number:064x}"),
            )
            for number, part in enumerate(parts, 1)
        )
    )


STEADY: dict[str, Callable[[float], list[Arrival]]] = {
    workload.__name__: workload
    for workload in (
        overload, proportional, overload_multi, weighted, on_off_less, on_off_overload, increase,
        dist_shift,
    )
}  # fmt: skip
"""By seconds."""

RANDOM: dict[str, Callable[[random.Random, float], list[Arrival]]] = {
    workload.__name__: workload for workload in (poisson_short_long, poisson_short_long_2)
}
"""By what draws and seconds."""


def _two_poisson(
    random_: random.Random, seconds: float, first: tuple[int, int], second: tuple[int, int]
) -> list[Arrival]:
    return merged(
        arrivals("1", poisson(8, seconds, random_), repeat(first)),
        arrivals("2", poisson(1.5, seconds, random_), repeat(second)),
    )


def _arena_lengths(random_: random.Random) -> Iterator[tuple[int, int]]:
    while True:
        prompt = round(random_.lognormvariate(4.162, 1.3))
        output = round(random_.lognormvariate(5.137, 1.0))
        yield min(max(prompt, 2), 1021), min(max(output, 2), 977)
