"""Links between hosts that go dead and heal, each in turn: python -m bench.partitions

A scheduler, a store, two gateways and three workers run in network namespaces of their own, with
two tenants that both always wait at both gateways. Meanwhile a link of each kind is cut and healed
(bench/partitions_net.py). Whatever clients are told has to be right, and they have to be told it.
Needs root, or a kernel that lets anybody make namespaces. Ends with 1 if anything is not as it has
to be.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import failures_checks as checks
from bench.failures_checks import Row
from bench.failures_fleet import Fleet, FleetWorld, Member, gateway_at, saved_model, worker_at
from bench.failures_load import Callers, Stream, drawn_wishes
from bench.partitions_fairness import Promises, gap
from bench.partitions_net import Network, go_inside
from bench.results import save
from bench.soak_streams import WHOLE
from bench.soak_world import MODEL
from services.cli.suite import Addresses, interruptible, only_one
from tests.tiny_models import VOCABULARY

GATEWAYS, WORKERS = ("gateway-1", "gateway-2"), ("worker-1", "worker-2", "worker-3")
HOSTS = ("store", "scheduler", *GATEWAYS, *WORKERS)
HTTP, GATEWAY, STORE, SCHEDULER, WORKER, UPLOADS = range(7410, 7416)
SEQUENCES = 8  # of each worker: fewer than want to run
CALLERS = {"acme": 20, "umbrella": 12}  # of each tenant, at each gateway
ADAPTERS, WISHES, TOKENS = 8, 6, (40, 120)
STALL_SECONDS = 15.0
PROBES = 72
AFTER_SECONDS = 2.0  # what still counts to a cut


@dataclass(frozen=True, slots=True)
class Cut:
    """`one` and `others` hear nothing of each other. Times are of time.monotonic()."""

    one: str
    others: Sequence[str]
    since: float = 0.0
    until: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.one} and {self.others[0] if len(self.others) == 1 else 'all others'}"


CUTS = (
    Cut("gateway-1", ["worker-1"]),
    Cut("gateway-2", ["scheduler"]),
    Cut("gateway-1", ["store"]),
    Cut("worker-2", ["scheduler"]),
    Cut("worker-3", ["store"]),
    Cut("scheduler", [host for host in HOSTS if host != "scheduler"]),
    Cut("worker-1", [host for host in HOSTS if host != "worker-1"]),
)


async def cut_in_turn(
    network: Network, cuts: Sequence[Cut], *, seconds: float, between: float
) -> list[Cut]:
    """As they were."""
    made: list[Cut] = []
    for cut in cuts:
        await asyncio.sleep(between)
        since = time.monotonic()
        await asyncio.to_thread(network.cut, cut.one, cut.others)
        print(f"cut: {cut.name}", flush=True)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(network.heal, cut.one, cut.others)
        made.append(Cut(cut.one, cut.others, since, time.monotonic()))
    await asyncio.sleep(between)
    return made


async def run(world: FleetWorld, network: Network, asked: argparse.Namespace) -> list[Row]:
    wishes = drawn_wishes(world.models, each=WISHES, vocabulary=VOCABULARY, tokens=TOKENS)
    callers = Callers([network.at(each, GATEWAY) for each in GATEWAYS], world.keys)
    for gateway in range(len(GATEWAYS)):  # both know the names before a store is away
        await callers.once(wishes, at_once=PROBES, gateway=gateway)
    before = list(callers.streams)
    expected = {stream.wish: stream.tokens for stream in before}
    links = [cut for cut in CUTS if asked.only in cut.name]
    until = time.monotonic() + len(links) * (asked.cut + asked.between) + asked.between
    promises = Promises([network.at(each, GATEWAY) for each in GATEWAYS], world.operator)
    watching = asyncio.create_task(promises.watch())
    load = asyncio.gather(
        *(
            callers.again_and_again(
                [wish for wish in wishes if wish.tenant == tenant],
                at_once=count,
                until=until,
                gateway=gateway,
            )
            for tenant, count in CALLERS.items()
            for gateway in range(len(GATEWAYS))
        )
    )
    begun = time.monotonic()
    cuts = await cut_in_turn(network, links, seconds=asked.cut, between=asked.between)
    await load
    watching.cancel()
    streams = callers.streams[len(before) :]
    rest = await asyncio.to_thread(world.at_rest)
    steps = await asyncio.to_thread(world.steps)
    await asyncio.gather(
        *(callers.once(wishes, at_once=PROBES // 2, gateway=n) for n in range(len(GATEWAYS)))
    )
    after = callers.streams[len(before) + len(streams) :]
    working = await asyncio.to_thread(world.steps)
    await callers.close()
    rest += await asyncio.to_thread(world.at_rest)
    ledger = await asyncio.to_thread(lambda: (world.rows(), world.sums()))
    return [
        *checks.all_whole(before),
        *checks.ended_or_retryable(streams),
        *(row for cut in cuts for row in _while(cut, streams)),
        checks.exact(streams, expected),
        *checks.stalls(streams, most=STALL_SECONDS),
        *checks.on_the_books(callers.streams, *ledger),
        *gap(streams, promises, begun=begun, until=until, cut=asked.cut),
        checks.none("probes afterwards that failed", [s.told for s in after if not _whole(s)]),
        checks.none(
            "workers that take no requests afterwards",
            [name for name in WORKERS if working.get(name, 0) <= steps.get(name, 0)],
        ),
        checks.none("sequences, requests or pages that are left", rest),
    ]


def _whole(stream: Stream) -> bool:
    return stream.told.end == WHOLE


def _while(cut: Cut, streams: Sequence[Stream]) -> list[Row]:
    """And for a while afterwards."""
    until = cut.until + AFTER_SECONDS
    failed = [s for s in streams if cut.since < s.ended < until and not _whole(s)]
    for end in {s.told.end for s in failed}:
        print(f"  {cut.name}: {end}")
    waits = [s.wait for s in streams if cut.since < s.begun + s.wait and s.begun < until]
    stalls = [s.stall for s in streams if cut.since < s.ended and s.begun < until]
    apart = f"while {cut.name} were apart"
    return [
        Row(f"streams told to ask again {apart}", len(failed)),
        Row(f"longest stall {apart}, s", round(max(stalls, default=0.0), 2)),
        Row(f"longest wait for a first token {apart}, s", round(max(waits, default=0.0), 2)),
    ]


def members(network: Network) -> tuple[Member, ...]:
    def at(host: str, port: int) -> str:
        return network.at(host, port)

    return (
        Member("store", "adapter_store", at("store", STORE), within=network.within("store")),
        Member(
            "scheduler", "scheduler", at("scheduler", SCHEDULER),
            within=network.within("scheduler"),
        ),
        *(worker_at(name, at(name, WORKER), network.within(name)) for name in WORKERS),
        *(
            gateway_at(name, at(name, GATEWAY), at(name, HTTP), network.within(name))
            for name in GATEWAYS
        ),
    )  # fmt: skip


def measured(asked: argparse.Namespace) -> list[Row]:
    network = Network(HOSTS)
    addresses = Addresses(
        http=network.at("gateway-1", HTTP),
        gateway=network.at("gateway-1", GATEWAY),
        store=network.at("store", STORE),
        scheduler=network.at("scheduler", SCHEDULER),
        worker=network.at("worker-1", WORKER),
        uploads=network.at("store", UPLOADS),
    )
    with ExitStack() as stack:
        home = asked.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(only_one(home))
        stack.enter_context(interruptible())
        fleet = Fleet(
            home,
            addresses,
            saved_model(home / "model"),
            memory_mebibytes=16,  # so that what is promised is near what can happen
            members=members(network),
        )
        try:
            world = FleetWorld.started(fleet)
            world.furnish_fleet(home / "adapters", adapters=ADAPTERS)
            return asyncio.run(run(world, network, asked))
        finally:
            fleet.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.partitions")
    parser.add_argument("--cut", type=float, default=10.0, help="seconds that a link is dead")
    parser.add_argument("--between", type=float, default=5.0, help="seconds until the next is")
    parser.add_argument("--only", default="", help="links whose name has this in it")
    parser.add_argument("--home", type=Path, help="a new folder, to keep the logs in")
    asked = parser.parse_args()
    go_inside()
    os.environ |= {
        "GPU_WORKER_MODEL_NAME": MODEL,
        "GPU_WORKER_LIMITS__MAX_SEQUENCES": str(SEQUENCES),
        "GPU_WORKER_THREADS": "1",  # three workers share the processors
    }
    rows = measured(asked)
    print(*rows, sep="\n")
    if not asked.only:
        save("partitions", {"claims": [asdict(row) for row in rows]})
    raise SystemExit(not all(row.holds for row in rows))


if __name__ == "__main__":
    main()
