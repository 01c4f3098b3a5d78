"""What dLoRA (OSDI'24) claims for merging, and what it leaves open, on a virtual clock: 16 seats, 8
adapters, steps that take what the artifact measured. The D numbers are those of the test plan.
LORIKEET_SEEDS says of how many workloads; python -m bench.merging has them all."""

import os
import random
import statistics
from collections.abc import Callable
from functools import cache

import pytest

from services.core.types import Digest, RequestId
from services.policies.merging.banded import OUTPUT, PROMPT, Banded, Rules
from services.policies.merging.batches import Policy, Queued, Ran
from services.policies.merging.credit import SHIPPED, Credit, Rates
from services.policies.merging.fixed import BreakEven, MergedOnly, UnmergedOnly
from services.simulator.early.workload import adapter_names
from services.simulator.merging.replica import Outcome, StepTimes, replay_merging
from services.simulator.merging.workload import Popularity, demand, one_cold

SEEDS = int(os.environ.get("LORIKEET_SEEDS", "3"))
SEATS = 16
RATIO = Rates().ratio
BAND = 20_000.0
POLICIES: dict[str, Callable[[float], Policy]] = {
    "unmerged": lambda _: UnmergedOnly(SEATS),
    "merged": lambda _: MergedOnly(SEATS),
    "break-even": lambda slower: BreakEven(SEATS, 1 / slower),
    "credit": lambda slower: Credit(SEATS, rates=Rates(unmerged=15 * slower)),
    "shipped": lambda slower: Credit(SEATS, rates=Rates(unmerged=15 * slower), scale=SHIPPED),
    "banded": lambda _: Banded(Rules(SEATS, band=BAND)),
}
BURSTS = Popularity(per_second=5.0, seconds=300.0, burst_seconds=60.0)


@cache
def played(policy: str, asked: Popularity, seed: int, slower: float = 1.8) -> Outcome:
    """`slower`: times that an unmerged step takes longer."""
    coming = demand(random.Random(seed), asked)
    return replay_merging(coming, POLICIES[policy](slower), StepTimes(unmerged=15 * slower))


def latency(policy: str, asked: Popularity, slower: float = 1.8) -> float:
    return statistics.fmean(played(policy, asked, s, slower).mean_latency for s in range(SEEDS))


def queue(of_one: int, others: int) -> list[Queued]:
    """Others come first, so that FCFS takes all of them; each has an adapter of its own."""
    adapters = [f"other-{number}" for number in range(others)] + ["hot"] * of_one
    return [
        Queued(RequestId(str(number)), Digest(adapter), adapter)
        for number, adapter in enumerate(adapters)
    ]


def merges(ratio: float, of_one: int) -> bool:
    """Whether so many percent of one adapter are run in place of a full batch, once it was measured
    that a merged step takes `ratio` of an unmerged one's time."""
    policy = Banded(Rules(20, band=1e9, mixes=False, pointless=0.95))
    merged = False
    for queued in [queue(20, 0), queue(5, 0)] * 30 + [queue(of_one // 5, 20 - of_one // 5)] * 100:
        batch = policy.choose(queued)
        merged = batch.merged is not None
        policy.ran(Ran(batch, 1, 10 * (ratio if merged else 1)))
    return merged


@pytest.mark.parametrize("ratio", [0.4, RATIO, 0.7, 0.85])
def test_it_merges_from_the_measured_break_even_on(ratio: float) -> None:
    """D1."""
    least = next(count for count in range(5, 101, 5) if merges(ratio, count))
    assert least / 100 == pytest.approx(ratio, abs=0.05)


def test_it_never_merges_where_that_is_pointless() -> None:
    """D1."""
    assert not any(merges(0.96, count) for count in range(5, 101, 5))


@pytest.mark.parametrize(("skew", "gain"), [(0.0, 1.4), (1.0, 1.4), (2.0, 2.0)])
def test_credit_is_faster_than_merging_always_or_never(skew: float, gain: float) -> None:
    """D3, with the credit that the artifact ships; with one that works it gains less."""
    asked = Popularity(skew=skew)
    assert latency("unmerged", asked) >= gain * latency("shipped", asked)
    assert latency("merged", asked) >= 1.5 * latency("shipped", asked)
    assert latency("unmerged", asked) >= 1.4 * latency("credit", asked)


@pytest.mark.parametrize(("slower", "least", "most"), [(1.3, 1.0, 1.6), (1.1, 0.99, 1.05)])
def test_better_kernels_leave_less_to_gain(slower: float, least: float, most: float) -> None:
    """D4; 1.8 is D3."""
    asked = Popularity()
    assert least <= latency("unmerged", asked, slower) / latency("credit", asked, slower) <= most


def test_credit_switches_seldom_and_is_as_fast_as_who_always_does() -> None:
    """D5."""
    shipped, stateless = (played(policy, BURSTS, 0) for policy in ("shipped", "break-even"))
    assert shipped.switches <= 0.05 * stateless.switches
    assert shipped.mean_latency <= 1.1 * stateless.mean_latency


@pytest.mark.parametrize(
    "asked",
    [Popularity(), Popularity(skew=1.0), Popularity(skew=2.0), Popularity(burst_seconds=20.0)],
    ids=["uniform", "zipf-1", "zipf-2", "bursts"],
)
def test_the_band_is_never_slower_than_merging_always_or_never(asked: Popularity) -> None:
    fixed = min(latency("unmerged", asked), latency("merged", asked))
    assert latency("banded", asked) <= (1.0 if asked.burst_seconds else 1.03) * fixed


def waits_of_cold(policy: Policy) -> list[float]:
    """Beside an adapter that three times as much is asked of as can run merged."""
    coming = one_cold(overload=3, seats=SEATS, step_ms=StepTimes().merged, seconds=30)
    return replay_merging(coming, policy).waits[adapter_names(2)[1]]


@pytest.mark.parametrize("band", [1000.0, 5000.0])
def test_nobody_waits_longer_than_the_band(band: float) -> None:
    """D6: until the other had the band and a step more than it."""
    times = StepTimes()
    step = SEATS * (20 * PROMPT + OUTPUT) + 8 * SEATS * OUTPUT  # eight are counted as one
    a_second = SEATS * OUTPUT * 1000 / times.merged
    prompts = 1.1  # steps that compute them take longer
    bound = prompts * (band + step) / a_second + (times.unmerged + times.switch) / 1000
    assert max(waits_of_cold(Banded(Rules(SEATS, band=band)))) <= bound


def test_credit_bounds_for_how_long_who_came_first_is_passed_over() -> None:
    """D6: a place lost in every step until it has the credit of a share, after as long as it waits
    for those who came before it. As shipped it never acts."""
    steps = 100.0 * RATIO * SEATS + 8
    before = waits_of_cold(UnmergedOnly(SEATS))
    working, shipped = Credit(SEATS, scale=100.0), Credit(SEATS, scale=SHIPPED)
    late = [
        [
            now - fcfs - steps * StepTimes().merged / 1000
            for now, fcfs in zip(waits, before, strict=True)
        ]
        for waits in (waits_of_cold(working), waits_of_cold(shipped))
    ]
    assert working.rescues
    assert max(late[0]) <= 0
    assert not shipped.rescues
    assert max(late[1]) > 0


def test_credit_is_only_ever_passed_on() -> None:
    policy = Credit(SEATS, scale=100.0)
    replay_merging(demand(random.Random(0), Popularity(skew=1.0, seconds=60)), policy)
    held = policy.credits.values()
    assert max(held) > min(held)
    assert sum(held) == pytest.approx(len(held) * (len(held) - 1) * 100.0)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_request_ends_once_with_all_its_tokens(policy: str) -> None:
    coming = demand(random.Random(3), Popularity(seconds=20.0, skew=1.0))
    outcome = replay_merging(coming, POLICIES[policy](1.8))
    assert len(outcome.latencies) == len(coming)
    assert outcome.tokens == sum(arrival.output_tokens for arrival in coming)
