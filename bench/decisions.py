"""What a decision of an admission policy takes: python -m bench.decisions

A request comes, one is admitted, its tokens are charged, it ends: with 1,000 tenants that wait and
100,000 that are known and idle, all in one tier of service. 8 of 100 adapters are resident.

And what a gateway takes to choose a worker among 1,000: see bench.choices.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from bench import choices
from bench.results import save
from services.core.types import Digest, RequestId, TenantId
from services.policies.fairness.admission import AdmissionPolicy, Request
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.tiers import Tiers

TOKENS = 20
TARGET = "<= 20"
CHOICE_TARGET = "p99 < 1000"
RESIDENT = [Digest(str(number)) for number in range(8)]


@dataclass(frozen=True, slots=True)
class Row:
    policy: str
    what: str
    microseconds: float  # median
    p99: float
    target: str


def a_request(number: int, tenant: int) -> Request:
    adapter = Digest(str(tenant % 100))
    return Request(RequestId(str(number)), TenantId(f"t{tenant}"), 100, TOKENS, adapter)


def settled(policy: AdmissionPolicy, *, idle: int, waiting: int) -> int:
    """`idle` tenants have had something and `waiting` others wait; how many requests that took.

    The idle had much, so that none of them may be forgotten.
    """
    for number in range(idle):
        policy.enqueue(a_request(number, waiting + number), 0.0)
        policy.admit(RequestId(str(number)), 0.0)
        policy.produced(RequestId(str(number)), 100_000 + number)
        policy.end(RequestId(str(number)))
    number = idle
    for tenant in [t for t in range(waiting) for _ in range(3)]:
        policy.enqueue(a_request(number, tenant), 0.0)
        number += 1
    return number


def measure(name: str, *, idle: int, waiting: int, times: int) -> list[Row]:
    policy = Tiers(lambda _: POLICIES[name](Knobs(requests_per_minute=10**9)))
    number = settled(policy, idle=idle, waiting=waiting)
    taken: dict[str, list[float]] = {"a decision": [], "a token": [], "an arrival, an end": []}

    for _ in range(times):
        begun = time.perf_counter()
        chosen = next(policy.candidates(0.0, RESIDENT))
        policy.admit(chosen.id, 0.0)
        decided = time.perf_counter()
        for _ in range(TOKENS):
            policy.produced(chosen.id)
        charged = time.perf_counter()
        policy.end(chosen.id)
        policy.enqueue(a_request(number, int(chosen.tenant[1:])), 0.0)
        number += 1
        ended = time.perf_counter()
        taken["a decision"].append(decided - begun)
        taken["a token"].append((charged - decided) / TOKENS)
        taken["an arrival, an end"].append(ended - charged)
    return [
        Row(name, what, 1e6 * statistics.median(each), 1e6 * statistics.quantiles(each, n=100)[98],
            TARGET if what == "a decision" else "")
        for what, each in taken.items()
    ]  # fmt: skip


def chosen(workers: int, times: int) -> Iterator[Row]:
    """The gateway's own choice."""
    for taken in (0.75, 1.0):
        seconds = asyncio.run(choices.seconds(workers, times, taken))
        cuts = statistics.quantiles(seconds, n=100)
        what = f"the gateway's own choice among {workers:,} workers, {taken:.0%} taken"
        yield Row("vtc", what, 1e6 * cuts[49], 1e6 * cuts[98], CHOICE_TARGET)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.decisions")
    parser.add_argument("--waiting", type=int, default=1000, help="tenants")
    parser.add_argument("--idle", type=int, default=100_000, help="tenants")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--times", type=int, default=20_000)
    asked = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in POLICIES:
        found = measure(name, idle=asked.idle, waiting=asked.waiting, times=asked.times)
        for row in found:
            print(f"{row.policy}: {row.what} {row.microseconds:.1f} us, p99 {row.p99:.1f}")
        rows += found
    for row in chosen(asked.workers, asked.times):
        print(f"{row.what}: {row.microseconds:.0f} us, p99 {row.p99:.0f}")
        rows.append(row)
    save("decisions", {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
