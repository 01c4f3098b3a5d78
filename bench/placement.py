"""Where requests go in a fleet of 1,000 workers: python -m bench.placement

100,000 adapters of 10,000 tenants, on a virtual clock: the placement in production, with its counts
of homes, and baselines. Loads: onto a device; fetches: from the store. max/mean: each second, the
sequences of the worker that has most by those of the mean. A decision's time is the core's.
"""

import argparse
import gc
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.results import save
from services.core.types import WorkerId
from services.policies.placement.baselines import BASELINES
from services.policies.placement.forecast import Season
from services.policies.placement.replicas import Rules
from services.policies.placement.views import Wish, WorkerView
from services.simulator.placement.foresight import errors
from services.simulator.placement.hardware import SLOW, Adapter, Hardware, catalogue, mixed
from services.simulator.placement.steering import MinCost, Unsteered
from services.simulator.placement.traces import TRACES, Shape, Trace, diurnal, zipf
from services.simulator.placement.worker import BASE_MODEL, FINGERPRINT
from services.simulator.placement.world import Measured, Steering, World

OURS = "min-cost"
LIFE_MS = 6500.0  # of a request on a worker, about


@dataclass(frozen=True, slots=True)
class Row:
    trace: str
    placement: str
    loads_per_1000: float
    fetches_per_1000: float
    max_by_mean: float
    first_token_ms: float
    first_token_p99_ms: float
    whole_seconds: float
    decision_us: float  # median
    decision_p99_us: float


@dataclass(frozen=True, slots=True)
class State:
    """What the placement in production holds, once every adapter was asked for and is somewhere."""

    workers: int
    adapters: int
    state_mib: float
    target_mib: str
    settle_ms: float


@dataclass(frozen=True, slots=True)
class Foretold:
    """Requests by which a bucket was off, for each that came."""

    trace: str
    ema: float
    seasonal: float
    chosen: float


class Timed:
    """Of a steering, how long its decisions keep a core busy."""

    def __init__(self, steering: Steering) -> None:
        self.seconds: list[float] = []
        self.update, self.remove = steering.update, steering.remove
        self.arrived, self.tick = steering.arrived, steering.tick
        self._place = steering.place

    def place(self, wish: Wish) -> WorkerId | None:
        begun = time.thread_time()
        chosen = self._place(wish)
        self.seconds.append(time.thread_time() - begun)
        return chosen


def steering(name: str, slots: int) -> Steering:
    """Times are those of a day made short."""
    if name == OURS:
        rules = Rules(fast_seconds=10.0, slow_seconds=60.0, least_seconds=20.0)
        return MinCost(rules, Season(3.0, 10), LIFE_MS / slots, foresees=True)
    return Unsteered(BASELINES[name](random.Random(5).random))


def measure(name: str, trace: Trace, fleet: Sequence[Hardware], adapters: Sequence[Adapter]) -> Row:
    gc.collect()
    timed = Timed(steering(name, fleet[0].slots))
    found: Measured = World(trace, fleet, adapters, timed).run()
    waits, taken = sorted(found.waits), statistics.quantiles(timed.seconds, n=100)
    return Row(
        trace=trace.name,
        placement=name,
        loads_per_1000=1000 * found.loads / found.requests,
        fetches_per_1000=1000 * found.fetches / found.requests,
        max_by_mean=statistics.fmean(found.uneven),
        first_token_ms=1000 * statistics.fmean(waits),
        first_token_p99_ms=1000 * waits[int(0.99 * len(waits))],
        whole_seconds=statistics.fmean(found.lives),
        decision_us=1e6 * taken[49],
        decision_p99_us=1e6 * taken[98],
    )


def state(workers: int, adapters: Sequence[Adapter]) -> State:
    """30 adapters on each device and as many as there are in host memory, evenly."""
    gc.collect()
    before = _resident_mib()
    steered = MinCost(Rules(), Season(), 800.0, foresees=True)
    for number in range(workers):
        device = adapters[30 * number : 30 * number + 30]
        host = adapters[number::workers]
        steered.update(
            WorkerView(
                id=WorkerId(f"w{number:04}"),
                base_model=BASE_MODEL,
                base_fingerprint=FINGERPRINT,
                running=5,
                waiting=0,
                free_pages=0,
                resident=frozenset(adapter.digest for adapter in device),
                draining=False,
                most_sequences=8,
                host=frozenset(adapter.digest for adapter in host),
            )
        )
    for adapter in adapters:
        steered.arrived(adapter.digest, 0.0)
        steered.place(Wish(BASE_MODEL, FINGERPRINT, adapter.digest))
    used = _resident_mib() - before
    begun = time.thread_time()
    steered.tick(steered.forecast.season.bucket_seconds)
    settled = 1000 * (time.thread_time() - begun)
    return State(workers, len(adapters), used, "<= 2048", settled)


def foretold(trace: Trace) -> Foretold:
    found = errors(trace, Season(5.0, 24))
    return Foretold(trace.name, found["ema"], found["seasonal"], found["chosen"])


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.placement")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--adapters", type=int, default=100_000)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--per-second", type=float, default=700.0, help="requests")
    parser.add_argument("--seconds", type=float, default=120.0)
    asked = parser.parse_args(arguments)
    shape = Shape(asked.adapters, asked.tenants, asked.per_second, asked.seconds)
    adapters = catalogue(asked.adapters)
    states = [state(asked.workers, adapters)]
    print(states[0])

    fleets = [(made(random.Random(1), shape), [SLOW] * asked.workers) for made in TRACES.values()]
    two_kinds = zipf(random.Random(1), shape, name="zipf, two kinds of worker")
    rows: list[Row] = []
    for trace, fleet in [*fleets, (two_kinds, mixed(asked.workers))]:
        for name in (OURS, *BASELINES):
            rows.append(measure(name, trace, fleet, adapters))
            print(rows[-1], flush=True)

    popular = Shape(2000, 100, 300.0, 960.0)
    made = [f(random.Random(1), popular) for name, f in TRACES.items() if name != "diurnal"]
    forecasts = [foretold(t) for t in [*made, diurnal(random.Random(1), popular, days=8)]]
    tables: dict[str, list[Any]] = {"rows": rows, "states": states, "forecasts": forecasts}
    save("placement", {name: [asdict(row) for row in table] for name, table in tables.items()})


if __name__ == "__main__":
    main()
