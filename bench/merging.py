"""Adapters folded into the weights, on a virtual clock: python -m bench.merging

One replica with 16 seats and 8 adapters (dLoRA, OSDI'24); a step of one merged adapter takes 15 ms,
any other `slower` times as long. D numbers are those of the test plan. What real weights make of it
is measured by python -m bench.merged_weights.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache

from bench.migration import Claim
from bench.results import save
from services.policies.merging.banded import Banded, Rules
from services.policies.merging.batches import Policy
from services.policies.merging.credit import SHIPPED, Credit, Rates
from services.policies.merging.fixed import BreakEven, MergedOnly, UnmergedOnly
from services.simulator.early.workload import adapter_names
from services.simulator.merging.replica import Outcome, StepTimes, replay_merging
from services.simulator.merging.workload import Popularity, demand, one_cold

SEATS = 16
PATIENCE = 16.0  # times what a switch takes
WRONG = 1.3  # times that an unmerged step takes longer than a policy that does not measure believes
POPULARITIES = {
    "uniform": Popularity(),
    "Zipf 1": Popularity(skew=1.0),
    "Zipf 2": Popularity(skew=2.0),
    "bursts": Popularity(burst_seconds=20.0),
    "long bursts": Popularity(per_second=5.0, seconds=300.0, burst_seconds=60.0),
}
POLICIES: dict[str, Callable[[float], Policy]] = {
    "unmerged only": lambda _: UnmergedOnly(SEATS),
    "merged only": lambda _: MergedOnly(SEATS),
    "break-even": lambda slower: BreakEven(SEATS, 1 / slower),
    "credit as shipped": lambda slower: Credit(SEATS, rates=_rates(slower), scale=SHIPPED),
    "credit": lambda slower: Credit(SEATS, rates=_rates(slower)),
    "banded, 5,000": lambda _: Banded(Rules(SEATS)),
    "banded, 20,000": lambda _: Banded(Rules(SEATS, band=20_000)),
    "no band": lambda _: Banded(Rules(SEATS, band=1e9)),
    "no band, patient": lambda _: Banded(Rules(SEATS, band=1e9, patience=PATIENCE)),
    "no band, nobody pauses": lambda _: Banded(Rules(SEATS, band=1e9, pauses=False)),
}


@dataclass(frozen=True, slots=True)
class Row:
    """Means of all seeds. `latency`: seconds for a token, from arrival to end; `longest_wait`:
    seconds to a first step."""

    popularity: str
    policy: str
    latency: float
    tokens_per_second: float
    switches: float
    longest_wait: float


@dataclass(frozen=True, slots=True)
class Cold:
    """An adapter beside one that three times as much is asked of as could run merged: the longest
    wait of each, in seconds."""

    policy: str
    cold: float
    hot: float
    tokens_per_second: float


def _rates(slower: float) -> Rates:
    return Rates(unmerged=15 * slower)


@cache
def played(popularity: str, policy: str, seed: int, slower: float, believed: float) -> Outcome:
    coming = demand(random.Random(seed), POPULARITIES[popularity])
    return replay_merging(coming, POLICIES[policy](believed), StepTimes(unmerged=15 * slower))


def row(popularity: str, policy: str, seeds: int) -> Row:
    outcomes = [played(popularity, policy, seed, 1.8, 1.8) for seed in range(seeds)]
    return Row(
        popularity, policy,
        statistics.fmean(each.mean_latency for each in outcomes),
        statistics.fmean(each.throughput for each in outcomes),
        statistics.fmean(each.switches for each in outcomes),
        statistics.fmean(max(map(max, each.waits.values())) for each in outcomes),
    )  # fmt: skip


def colds() -> Iterator[Cold]:
    hot, cold = adapter_names(2)
    coming = one_cold(overload=3, seats=SEATS, step_ms=15, seconds=60)
    for policy, make in POLICIES.items():
        found = replay_merging(coming, make(1.8))
        waits = found.longest_wait(cold), found.longest_wait(hot)
        yield Cold(policy, *waits, found.throughput)


def gain(policy: str, popularity: str, seeds: int, slower: float, believed: float) -> float:
    """Over unmerged only."""

    def latency(of: str) -> float:
        each = (played(popularity, of, seed, slower, believed) for seed in range(seeds))
        return statistics.fmean(outcome.mean_latency for outcome in each)

    return latency("unmerged only") / latency(policy)


def claims(rows: Sequence[Row], waits: Sequence[Cold], seeds: int) -> Iterator[Claim]:
    found = {(each.popularity, each.policy): each for each in rows}
    for popularity, least in (("uniform", 1.4), ("Zipf 1", 1.4), ("Zipf 2", 2.0)):
        for policy in ("credit as shipped", "credit"):
            by = found[popularity, policy].latency
            for other, most in (("unmerged only", least), ("merged only", 1.5)):
                text = f"D3 {popularity}: latency, {other} over {policy}"
                yield Claim.at_least(most, text, found[popularity, other].latency / by)
    for policy in ("credit", "banded, 20,000"):
        for slower, most in ((1.3, 1.6), (1.1, 1.05)):
            text = f"D4 uniform, {slower} times slower: latency, unmerged only over {policy}"
            yield Claim.at_most(most, text, gain(policy, "uniform", seeds, slower, slower))
        text = (
            f"latency where unmerged steps are {WRONG} of what is believed, unmerged over {policy}"
        )
        value = gain(policy, "uniform", seeds, 1.8 * WRONG, 1.8)
        yield Claim.at_least(1.4, text, value)
    stateless = found["long bursts", "break-even"]
    for policy in ("credit as shipped", "no band, patient"):
        lazy, text = found["long bursts", policy], f"D5: {policy} over break-even"
        yield Claim.at_most(0.05, f"{text}: switches", lazy.switches / stateless.switches)
        yield Claim.at_most(1.1, f"{text}: latency", lazy.latency / stateless.latency)
    for popularity in POPULARITIES:
        policy = "banded, 20,000"
        fixed = [found[popularity, f"{each} only"].latency for each in ("unmerged", "merged")]
        most = 1.0 if "bursts" in popularity else 1.03
        text = f"{popularity}: latency over the better of the fixed, {policy}"
        yield Claim.at_most(most, text, found[popularity, policy].latency / min(fixed))
    for one in waits:
        if one.policy.startswith("banded"):
            band = float(one.policy.partition(", ")[2].replace(",", ""))
            step = SEATS * (20 + 2) + 8 * SEATS * 2
            bound = 1.1 * (band + step) / (SEATS * 2 / 0.015) + 0.047
            text = f"D6: seconds that a cold one waits, {one.policy}"
            yield Claim.at_most(round(bound, 2), text, one.cold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.merging")
    parser.add_argument("--seeds", type=int, default=8)
    asked = parser.parse_args()
    rows = []
    for popularity in POPULARITIES:
        seeds = min(asked.seeds, 3) if popularity == "long bursts" else asked.seeds
        for policy in POLICIES:
            rows.append(row(popularity, policy, seeds))
            print(rows[-1], flush=True)
    waits = list(colds())
    held = list(claims(rows, waits, asked.seeds))
    for claim in held:
        print(f"{claim.holds:>4} {claim.claim}: {claim.value:.3g} ({claim.target})")
    figures = {
        "policies": [asdict(each) for each in rows],
        "starvation": [asdict(each) for each in waits],
        "claims": [asdict(each) for each in held],
    }
    save("merging", dict(figures))


if __name__ == "__main__":
    main()
