"""Thousands of streams while processes die, and what is left of them: python -m bench.soak

A suite of real processes serves a small random model over SQLite. Half of the callers come over
gRPC, half over HTTP; they read to the end, leave, read slowly, do not read, or stop in the middle
of their request (bench/soak_callers.py). Worker, store and scheduler are killed in turn and started
again. In the end nothing may be left, and the books have to say what the clients were told. Some
callers of each face belong to a tenant that has a budget of tokens and a limit of requests at once.
Ends with 1 if anything is not as it has to be.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import soak_books as books
from bench.results import save
from bench.soak_load import Load, Watch, kill_in_turn
from bench.soak_processes import Holding, holding, open_files
from bench.soak_streams import Told
from bench.soak_world import MODEL, World, saved_model
from services.cli.suite import Suite, free_addresses, interruptible, only_one

SEQUENCES = 256  # that the worker runs at once
METERED_AT_ONCE = 16
METERED_TOKENS_PER_SECOND = 40  # of the whole time, that the budget is for
QUIET_SECONDS = 60.0
KEPT = 8  # files and threads more than when it was warm: pools that had not grown to their size
GROWTH = 1.25  # of the gateway's memory, that is no leak
SHOWN = 5  # of the faults of one kind


@dataclass(frozen=True, slots=True)
class Row:
    claim: str
    found: float | int
    wanted: str
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Ran:
    """What is known when all is over. `before`: when it was warm, and nothing ran."""

    told: Sequence[Told]
    open: Sequence[int]
    kills: int
    watch: Watch
    before: dict[str, Holding]
    after: dict[str, Holding]
    unrest: Sequence[str]
    budget: int


def run(world: World, asked: argparse.Namespace, budget: int) -> Ran:
    warm = Load(world, asked.streams, asked.warm, asked.patience, seed=0)
    load = Load(world, asked.streams, asked.seconds, asked.patience, seed=1)
    watch = Watch(world)
    with ThreadPoolExecutor(1) as thread:
        try:
            warm.start()
            warm.wait()
            before = held_at_rest(world)
            print(f"warm after {len(warm.told)} streams: {before}", flush=True)
            watching = thread.submit(watch.run)
            load.start()
            kills = kill_in_turn(world, seconds=asked.seconds, every=asked.kill_every)
            load.wait()
        finally:
            watch.done.set()
            warm.stop()
            load.stop()
    watching.result()
    after = held_at_rest(world, before)
    return Ran(
        told=warm.told + load.told,
        open=load.open,
        kills=sum(kills.values()),
        watch=watch,
        before=before,
        after=after,
        unrest=world.unrest(),
        budget=budget,
    )


def held_at_rest(world: World, before: dict[str, Holding] | None = None) -> dict[str, Holding]:
    """What the processes hold when nothing runs and no more than `before` is open; or, after a
    while, whatever they hold then."""
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        held = {name: holding(process.pid) for name, process in world.suite.processes.items()}
        grown = before is not None and any(held[n].files > b.files for n, b in before.items())
        if not (grown or world.unrest()) or time.monotonic() > deadline:
            return held
        time.sleep(1.0)


def judged(ran: Ran, world: World) -> list[Row]:
    rows = world.rows()
    spent = [each for each in ran.told if books.is_out_of_budget(each)]
    totals = books.totals(ran.told, rows)
    booked = books.metered_tokens(rows)
    used = world.metered().tokens_in_total
    most = max(ran.watch.most_tokens, used)
    at_once = max(ran.watch.most_running, books.most_at_once(rows))
    return [
        Row("streams at once, median", statistics.median(ran.open), ""),
        Row("streams begun", len(ran.told), ""),
        *(Row(f"that ended: {end}", n, "") for end, n in sorted(books.ends(ran.told).items())),
        Row("processes killed and started again", ran.kills, ""),
        _none("streams that are stuck", books.stuck(ran.told)),
        _none("ends that nothing explains", books.unexpected(ran.told)),
        _none("sequences, requests or reservations left, pages not free", ran.unrest),
        _none("requests that are wrongly on the books", books.misbooked(ran.told, rows)),
        Row("requests on the books", len(rows), ""),
        _equal(
            "tokens on the books, of those delivered to the end", totals.booked, totals.delivered
        ),
        _none("tenants whose sums are not those of their rows", books.off_sums(rows, world.sums())),
        _equal("tokens settled with the quota, of those on the books", used, booked),
        _at_most("tokens of the metered tenant, used and reserved", most, ran.budget),
        _at_most("requests of the metered tenant at once", at_once, METERED_AT_ONCE),
        Row("requests refused because the budget was spent", len(spent), ">= 1", bool(spent)),
        *_held(ran, world),
    ]


def _held(ran: Ran, world: World) -> list[Row]:
    found: list[Row] = []
    for name, before in ran.before.items():
        after = ran.after[name]
        row = _at_most(f"open files of {name}", after.files, before.files + KEPT)
        if not row.holds:
            print(*open_files(world.suite.processes[name].pid), sep="\n")
        found += [row, _at_most(f"threads of {name}", after.threads, before.threads + KEPT)]
    plateau = ran.watch.mebibytes[len(ran.watch.mebibytes) // 4]
    end, peak = ran.after["gateway"].mebibytes, max(ran.watch.mebibytes)
    return [
        *found,
        Row("MiB of gateway, after a quarter of the time", plateau, ""),
        Row("MiB of gateway, most", peak, ""),
        _at_most("MiB of gateway, at the end", end, int(plateau * GROWTH)),
        *(
            Row(f"MiB of {name}, before and after", held.mebibytes, str(ran.before[name].mebibytes))
            for name, held in ran.after.items()
            if name != "gateway"
        ),
    ]


def _none(claim: str, faults: Sequence[str]) -> Row:
    if faults:
        print(f"{claim}:", *faults[:SHOWN], sep="\n  ", flush=True)
    return Row(claim, len(faults), "0", not faults)


def _equal(claim: str, found: int, wanted: int) -> Row:
    return Row(claim, found, str(wanted), found == wanted)


def _at_most(claim: str, found: int, wanted: int) -> Row:
    return Row(claim, found, f"<= {wanted}", found <= wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.soak")
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--warm", type=float, default=20.0, help="seconds of load before them")
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds")
    parser.add_argument("--patience", type=float, default=180.0, help="seconds to end afterwards")
    parser.add_argument("--home", type=Path, help="a new folder, to keep the logs in")
    asked = parser.parse_args()
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    os.environ |= {
        "GPU_WORKER_MODEL_NAME": MODEL,
        "GPU_WORKER_LIMITS__MAX_SEQUENCES": str(SEQUENCES),
        "GPU_WORKER_THREADS": "1",  # the model is small; the others want the processors
    }
    budget = int(METERED_TOKENS_PER_SECOND * (asked.warm + asked.seconds))
    with ExitStack() as stack:
        home = asked.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(only_one(home))
        stack.enter_context(interruptible())  # the suite is stopped all the same
        suite = Suite(home, free_addresses(), saved_model(home / "model"), memory_mebibytes=64)
        try:
            world = World.of(suite, suite.start(lambda step: print(step, flush=True)))
            world.furnish(home / "adapters", running=METERED_AT_ONCE, budget=budget)
            rows = judged(run(world, asked, budget), world)
        finally:
            suite.stop()
    for row in rows:
        print(f"{'' if row.holds else 'NOT: '}{row.claim}: {row.found} {row.wanted}")
    save("soak", {"rows": [asdict(row) for row in rows]})
    raise SystemExit(not all(row.holds for row in rows))


if __name__ == "__main__":
    main()
