"""Dispatch and moves between replicas, as dLoRA (OSDI'24) has them: python -m bench.migration

8 replicas on a virtual clock, 32 adapters, demand that is drawn anew every minute, requests bound
when they come. D and B numbers are those of the test plan. Merging replicas run what is asked of
one adapter alone at 15 ms an iteration and a mixture at 27 ms; others take 27 ms for either.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from bench.results import save
from services.policies.migration.board import Board
from services.policies.migration.greedy import Owed
from services.policies.migration.loads import PlannedMove, WorkerLoad
from services.policies.migration.program import Limit, solve
from services.policies.migration.rounds import Knobs, decide
from services.simulator.early.arms import ARMS, EFFORT, EVEN_POPULARITY, GREEDY, UNMERGED, play
from services.simulator.early.fleet import Fleet, Outcome, Planner
from services.simulator.early.replica import CopyReplica
from services.simulator.early.workload import Bursts

WORLDS = {"merging": (Fleet(), (24.0, 30.0)), "not merging": (UNMERGED, (17.0, 20.0))}
BOTH_WAYS = 40  # rounds that are decided both greedily and by the program


@dataclass(frozen=True, slots=True)
class Row:
    """Latencies are seconds for a token, from arrival to end: of all seeds, and of each. Moves and
    tokens that were computed once more are those of a seed."""

    replicas: str
    per_second: float
    policy: str
    latency: float
    least: float
    most: float
    moves: float
    begun: float
    recomputed: float
    decision_ms: float
    p99_ms: float
    share_of_time: float


@dataclass(frozen=True, slots=True)
class Claim:
    claim: str
    value: float
    target: str
    holds: str

    @classmethod
    def at_least(cls, target: float, claim: str, value: float) -> "Claim":
        return cls(claim, value, f">= {target:g}", "yes" if value >= target else "no")

    @classmethod
    def at_most(cls, target: float, claim: str, value: float) -> "Claim":
        return cls(claim, value, f"<= {target:g}", "yes" if value <= target else "no")


class Watch:
    """Times decisions, and keeps what they were about."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self.rounds: list[Sequence[WorkerLoad]] = []

    def around(self, planner: Planner) -> Planner:
        def plan(loads: Sequence[WorkerLoad], now: float) -> Sequence[PlannedMove]:
            self.rounds.append(loads)
            begun = time.perf_counter()
            moves = planner(loads, now)
            self.milliseconds.append(1000 * (time.perf_counter() - begun))
            return moves

        return plan


def compared(seeds: int, watches: dict[tuple[str, float, str], Watch]) -> Iterator[Row]:
    for world, (fleet, rates) in WORLDS.items():
        for rate in rates:
            for arm in ARMS:
                watch = watches[world, rate, arm] = Watch()
                outcomes = [
                    play(arm, Bursts(rate), seed, fleet=fleet, watched=watch.around)
                    for seed in range(seeds)
                ]
                yield _row(world, rate, arm, outcomes, watch)


def _row(world: str, rate: float, arm: str, outcomes: list[Outcome], watch: Watch) -> Row:
    taken = watch.milliseconds or [0.0, 0.0]
    latencies = [outcome.mean_latency for outcome in outcomes]
    return Row(
        world, rate, arm,
        statistics.fmean(latencies), min(latencies), max(latencies),
        statistics.fmean(o.moves for o in outcomes),
        statistics.fmean(o.begun for o in outcomes),
        statistics.fmean(o.recomputed for o in outcomes),
        statistics.fmean(taken), statistics.quantiles(taken, n=100)[98],
        sum(taken) / 1000 / sum(o.seconds for o in outcomes),
    )  # fmt: skip


def lengths(seeds: int) -> dict[str, list[float]]:
    """D9: by policy the latency where odd adapters make 1, 2, 4, 6 and 8 times as many tokens."""
    found: dict[str, list[float]] = {}
    for arm in ("static", "proactive", "greedy"):
        for ratio in (1.0, 2.0, 4.0, 6.0, 8.0):
            asked = Bursts(19.0, evenness=EVEN_POPULARITY, length_ratio=ratio)
            each = [play(arm, asked, s, fleet=UNMERGED).mean_latency for s in range(seeds)]
            found.setdefault(arm, []).append(statistics.fmean(each))
        print(f"D9 {arm}: {found[arm]}", flush=True)
    return found


def throughputs(seeds: int) -> dict[str, list[float]]:
    """D10: tokens a second with 16, 32, 64 and 128 adapters, and with as many copies of models."""
    fleets = {"adapters": Fleet(slots=20), "copies": Fleet(slots=20, build=CopyReplica)}
    found: dict[str, list[float]] = {}
    for name, fleet in fleets.items():
        arm = "greedy" if name == "adapters" else "static"
        for count in (16, 32, 64, 128):
            asked = Bursts(20.0, adapters=count, evenness=EVEN_POPULARITY)
            each = [play(arm, asked, s, fleet=fleet, until=200.0).throughput for s in range(seeds)]
            found.setdefault(name, []).append(statistics.fmean(each))
        print(f"D10 {name}: {found[name]}", flush=True)
    return found


def both_ways(rounds: list[Sequence[WorkerLoad]]) -> tuple[float, float]:
    """Median milliseconds of greedy and of the program's decisions of the same rounds, those where
    somebody waits on the busiest worker: each by itself, as a fleet that has one runs it."""
    uneven = [loads for loads in rounds if Board(loads).imbalance > Knobs().uneven]
    chosen = uneven[:: max(1, len(uneven) // BOTH_WAYS)]

    def taken(plan: Callable[[Sequence[WorkerLoad]], object]) -> float:
        milliseconds = []
        for loads in chosen:
            begun = time.perf_counter()
            plan(loads)
            milliseconds.append(1000 * (time.perf_counter() - begun))
        return statistics.median(milliseconds)

    limit = Limit(Knobs().most_moves)
    return (
        taken(lambda loads: decide(loads, knobs=GREEDY)),
        taken(lambda loads: solve(Board(loads), Owed(), limit, EFFORT)),
    )


def claims(
    rows: list[Row], skewed: dict[str, list[float]], many: dict[str, list[float]]
) -> Iterator[Claim]:
    for world, (_, rates) in WORLDS.items():
        for rate in rates:
            latency = {
                r.policy: r.latency for r in rows if (r.replicas, r.per_second) == (world, rate)
            }
            proactive, where = latency["proactive"], f"{world}, {rate:g} a second"
            yield Claim.at_least(
                1.8, f"D7 static / proactive, {where}", latency["static"] / proactive
            )
            for arm in ("proactive, rounds", "rounds") if rate == rates[-1] else ():
                yield Claim.at_most(
                    0.75, f"D8 {arm} / proactive, {where}", latency[arm] / proactive
                )
            gap = latency["proactive, greedy"] / latency["proactive, program"]
            yield Claim.at_most(1.15, f"B5 greedy / program, {where}", gap)
    greedy, static = (skewed[arm][-1] / skewed[arm][0] for arm in ("greedy", "static"))
    yield Claim.at_most(1.6, "D9 greedy, lengths 8 / 1", greedy)
    yield Claim.at_least(2, "D9 static, lengths 8 / 1", static)
    adapters, copies = (many[name][-1] / many[name][0] for name in ("adapters", "copies"))
    yield Claim.at_least(0.95, "D10 tokens a second, 128 / 16 adapters", adapters)
    yield Claim.at_most(0.6, "D10 tokens a second, 128 / 16 copies", copies)
    share = max(row.share_of_time for row in rows if row.policy.endswith("rounds"))
    yield Claim.at_most(0.01, "D11 share of time that rounds take", share)
    slowest = max(row.p99_ms for row in rows if row.policy.endswith("program"))
    yield Claim.at_most(1000, "D11 p99 ms of the program", slowest)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.migration")
    parser.add_argument("--seeds", type=int, default=4)
    asked = parser.parse_args(arguments)
    watches: dict[tuple[str, float, str], Watch] = {}
    rows = []
    for row in compared(asked.seeds, watches):
        print(f"{row.replicas}, {row.per_second:g}, {row.policy}: {row.latency:.4f} s a token, "
              f"{row.moves:.0f} moves, {row.decision_ms:.2f} ms, p99 {row.p99_ms:.1f}")  # fmt: skip
        rows.append(row)
    found = list(claims(rows, lengths(asked.seeds), throughputs(asked.seeds)))
    for (world, rate, arm), watch in watches.items():
        if arm == "proactive, greedy" and rate in (30.0, 20.0):
            greedy, program = both_ways(watch.rounds)
            print(f"{world}: greedy {greedy:.3f} ms, program {program:.1f} ms")
            name = f"B5 program's time / greedy's, {world}, {greedy:.2g} ms greedy"
            found.append(Claim.at_least(100, name, program / greedy))
    for claim in found:
        print(f"{claim.claim}: {claim.value:.3g}, {claim.target}: {claim.holds}")
    save(
        "migration",
        {"claims": [asdict(claim) for claim in found], "rows": [asdict(row) for row in rows]},
    )


if __name__ == "__main__":
    main()
