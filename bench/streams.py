"""What callers see: first tokens, gaps and rates of many streams at once."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from bench.workload import Arrival

Ask = Callable[[int, Arrival], AsyncIterator[int]]
"""Runs the nth request and says how many tokens came, whenever some do."""


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over a workload. Rates count output tokens; times are seconds."""

    adapters: int
    requests: int
    tokens_per_second: float
    seconds: float
    median_first_token: float
    p99_between_tokens: float


@dataclass(slots=True)
class Timings:
    """Taken while a workload runs."""

    started: float = field(default_factory=time.perf_counter)
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    _born: dict[int, float] = field(default_factory=dict)
    _last: dict[int, float] = field(default_factory=dict)

    @property
    def now(self) -> float:
        return time.perf_counter() - self.started

    def begins(self, request: int) -> None:
        self._born[request] = self.now

    def came(self, request: int, tokens: int) -> None:
        now = self.now
        self.tokens += tokens
        if request in self._last:
            self.gaps.append(now - self._last[request])
        else:
            self.first.append(now - self._born[request])
        self._last[request] = now

    def run(self, arrivals: Sequence[Arrival]) -> Run:
        seconds = self.now
        return Run(
            adapters=len({arrival.adapter for arrival in arrivals} - {None}),
            requests=len(arrivals),
            tokens_per_second=self.tokens / seconds,
            seconds=seconds,
            median_first_token=statistics.median(self.first),
            p99_between_tokens=percentile(self.gaps, 0.99),
        )


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] if values else 0.0


async def follow(ask: Ask, arrivals: Sequence[Arrival], *, at_once: int | None = None) -> Timings:
    """Every request when it is due; at most so many `at_once`, the next when one ends."""
    slots = asyncio.Semaphore(at_once or len(arrivals))
    timings = Timings()

    async def one(number: int, arrival: Arrival) -> None:
        await asyncio.sleep(max(0.0, arrival.at - timings.now))
        async with slots:
            timings.begins(number)
            async for tokens in ask(number, arrival):
                timings.came(number, tokens)

    await asyncio.gather(*(one(number, arrival) for number, arrival in enumerate(arrivals)))
    return timings


def median_run(runs: Sequence[Run]) -> Run:
    return sorted(runs, key=lambda run: run.tokens_per_second)[len(runs) // 2]
