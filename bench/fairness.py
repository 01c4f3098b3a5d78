"""Tenants that want more than there is, on the real suite: python -m bench.fairness

Each policy has a suite of its own, with a worker of few sequences and of little more memory than
they need, so that requests wait in the gateway, and so that what the policy promises is near what
can happen. Service is counted here, by what the clients get: a token of prompt 1 with the first
piece, a token of output 2. What a tenant asks for is in parts of what the worker can do, which each
case measures first. Shares, gaps and the rest are of the time after the first fifth.

Cases: `two` tenants ask for 2x and 1x; a `flood` of 3x beside 0.2x; `weights` 1:2:3:4; one joins
`late`; two with more `adapters` than the worker has room for; one in each of three `tiers` of
service. python -m bench.plots draws them.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.results import save
from bench.shares import CLAIMS, Outcome, measured
from bench.tenants import Client, Tenant, World, adapter_folder
from services.cli.suite import Suite, embedded_model, free_addresses, interruptible, only_one
from services.core.types import Tier

POLICIES = ("fcfs", "rpm-reject", "lcf", "vtc", "vtc-predict", "vtc-adapter")
SEQUENCES = 8  # that the worker runs at once
MEBIBYTES = 25  # for them; an adapter takes ten more
THIRD = 1 / 3


@dataclass(frozen=True, slots=True)
class Case:
    """`window`: the part of the time that counts. `longer`: than other cases, so many times."""

    name: str
    tenants: tuple[Tenant, ...]
    policies: tuple[str, ...]
    mebibytes: int = MEBIBYTES
    window: tuple[float, float] = (0.2, 1.0)
    longer: int = 1


CASES = (
    Case("two", (Tenant("greedy", 2.0), Tenant("other", 1.0)), POLICIES),
    Case("flood", (Tenant("flood", 3.0), Tenant("light", 0.2)), ("fcfs", "vtc")),
    Case(
        "weights",
        tuple(Tenant(f"weight-{number}", 1.0, weight=number) for number in (1, 2, 3, 4)),
        ("vtc",),
        longer=3,  # so that a request more or less of the least is little
    ),
    Case(
        "late",
        (Tenant("early", 2.0), Tenant("late", 2.0, since=THIRD)),
        ("lcf", "vtc"),
        window=(THIRD, 2 * THIRD),
        longer=2,  # so that what ran when it joined is little
    ),
    Case(
        "adapters",
        (Tenant("greedy", 2.0, adapters=4), Tenant("other", 1.0, adapters=4)),
        ("fcfs", "vtc", "vtc-adapter"),
        mebibytes=MEBIBYTES + 3 * 10,
    ),
    Case(
        "tiers",
        tuple(Tenant(tier.value, 1.0, tier=tier) for tier in Tier),
        ("vtc",),
        longer=3,  # so that a request more or less of the lowest is little
    ),
)


@contextmanager
def suite(case: Case, settings: Mapping[str, str], adapter: Path) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as home, only_one(Path(home)):
        os.environ |= settings
        running = Suite(
            Path(home), free_addresses(), embedded_model(), memory_mebibytes=case.mebibytes
        )
        try:
            yield World(running.start(lambda step: None), adapter)
        finally:
            running.stop()
            for name in settings:
                del os.environ[name]


def run(case: Case, seconds: float, adapter: Path) -> dict[str, Any]:
    """Every policy of the case in turn."""
    window = (case.window[0] * seconds, case.window[1] * seconds)
    capacity, outcomes, series = 0.0, dict[str, Outcome](), list[dict[str, str]]()
    for policy in case.policies:
        settings = {"GATEWAY_POLICY": policy}
        if capacity:  # so that two can just fill the time, or a minute of it
            most = max(1, round(capacity * min(seconds, 60) / 2))
            settings["GATEWAY_REQUESTS_PER_MINUTE"] = str(most)
        with suite(case, settings, adapter) as world:
            if not capacity:
                probe = world.joined(Tenant("probe", 1.0), capacity=1.0, seconds=0.0)
                capacity = asyncio.run(world.capacity(probe, SEQUENCES))
            clients = [
                world.joined(tenant, capacity=capacity, seconds=seconds) for tenant in case.tenants
            ]
            promise = asyncio.run(world.run(clients, seconds))
        outcomes[policy] = measured(policy, clients, promise, window)
        series += [_series(policy, client, seconds) for client in clients]
        print(case.name, outcomes[policy], flush=True)
    claims = list(CLAIMS[case.name](outcomes))
    for claim in claims:
        print(f"  {claim.row}")
    return {
        "claims": [claim.row for claim in claims],
        "outcomes": [outcome.row for outcome in outcomes.values()],
        "capacity": capacity,
        "window": window,
        "series": series,
    }


def _series(policy: str, client: Client, seconds: float) -> dict[str, str]:
    """Second by second: service, and the mean milliseconds of the first tokens that came, "-" if
    none did."""
    starts = range(int(seconds))
    firsts = [[s for at, s in client.first_tokens if start <= at < start + 1] for start in starts]
    return {
        "policy": policy,
        "tenant": client.name,
        "service": " ".join(str(client.service(start, start + 1)) for start in starts),
        "first_token": " ".join(
            f"{1000 * sum(found) / len(found):.0f}" if found else "-" for found in firsts
        ),
    }


def main() -> None:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m bench.fairness",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds", type=float, default=22.0, help="of each policy; some cases take longer"
    )
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    asked = parser.parse_args()
    os.environ |= {
        "GPU_WORKER_PREFIX_CACHE": "false",  # the same prompts come again and again
        "GPU_WORKER_LIMITS__MAX_SEQUENCES": str(SEQUENCES),
    }
    with interruptible(), adapter_folder() as adapter:
        for case in CASES:
            if case.name in asked.cases:
                save(f"fairness_{case.name}", run(case, case.longer * asked.seconds, adapter))


if __name__ == "__main__":
    main()
