"""Adapters folded into real weights: python -m bench.merged_weights

SmolLM2-135M on one processor with adapters of rank 16. Policies have its first layers alone and
adapters of rank 64, the thousand switches its first layer. Times are the processor's, not the
clock's, for other work on a machine would be taken for what a policy does.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch

from bench.engines import settled_thread
from bench.merging_rig import OUTPUT, SEATS, Rig, Told, clock, hash_of, rig, shortened
from bench.migration import Claim
from bench.results import save
from bench.workload import random_adapters, read_adapter
from services.adapter_store.canonical import CanonicalAdapter
from services.cli.demo import EXAMPLES
from services.cli.suite import embedded_model
from services.core.types import RequestId
from services.gpu_worker.engine.merging import FOLD_STEPS
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.policies.merging.batches import Policy
from services.policies.merging.fixed import MergedOnly, UnmergedOnly
from services.policies.merging.policies import POLICIES

ADAPTERS = 8
PROMPTS = 64
WARM = FOLD_STEPS + 2


def answers(
    of: Rig, hot: int | None
) -> tuple[dict[RequestId, list[int]], dict[RequestId, torch.Tensor]]:
    """Of all prompts, by the base and two adapters in turn, with one of these in the weights."""
    of.number = 0
    merging = of.engine.merging
    if merging is not None and hot is not None:
        warm = of.submit(hot, WARM + 2)
        for _ in range(WARM):
            of.step_ms()
        assert merging.state.adapter == of.digests[hot]
        of.engine.cancel(warm)
    of.number, of.runner.logits = 0, {}
    made: dict[RequestId, list[int]] = {}
    for number in range(PROMPTS):
        made[of.submit((None, 0, 1)[number % 3])] = []
    while not (report := of.engine.step()).is_idle:
        for request, piece in report.pieces:
            made[request] += piece.tokens
    return made, {request: torch.stack(rows) for request, rows in of.runner.logits.items()}


def exactness(
    model: LoadedModel, adapters: Sequence[CanonicalAdapter], kind: str
) -> Iterator[Claim]:
    plain, plain_logits = answers(rig(model, adapters[:2], None, PROMPTS), None)
    policy = Told()
    folding = rig(model, adapters[:2], policy, PROMPTS)
    before = hash_of(model)
    for hot in (0, 1):
        policy.wanted = folding.digests[hot]
        made, logits = answers(folding, hot)
        same = sum(made[request] == plain[request] for request in plain) / len(plain)
        yield Claim.at_least(
            1.0, f"D2: same greedy tokens, {kind} adapter {hot} in the weights", same
        )
        most = max(float((logits[r] - plain_logits[r]).abs().max()) for r in plain)
        yield Claim.at_most(1e-4, f"D2: largest difference of a logit, {kind} adapter {hot}", most)
    yield Claim.at_most(
        0, f"D2: bytes of the base changed, {kind} adapters", float(hash_of(model) != before)
    )


def switches(model: LoadedModel, adapters: Sequence[CanonicalAdapter]) -> Claim:
    """A thousand, in any order."""
    folding, drawn = rig(model, adapters, Told()), random.Random(0)
    residency, runner, before = folding.pool.residency, folding.runner, hash_of(model)
    most = max(residency.pages_of(digest) for digest in folding.digests)
    pages = folding.pool.spare(most, keep=0)
    assert pages is not None
    for _ in range(1000):
        digest = drawn.choice(folding.digests)
        runner.begin_fold(digest, pages[: residency.pages_of(digest)])
        while not runner.fold():
            pass
        runner.use_folded()
    text = "D2: bytes of the base changed by 1,000 switches"
    return Claim.at_most(0, text, float(hash_of(model) != before))


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds of a step of 16 sequences, medians of turns; `over`: of its ratio in each turn
    to that of the base alone."""

    batch: str
    milliseconds: float
    over: float


KINDS: dict[str, tuple[Callable[[int], int | None], bool]] = {
    "no adapter": (lambda _: None, False),
    "one, unmerged": (lambda _: 0, False),
    "one, merged": (lambda _: 0, True),
    "8, unmerged": (lambda i: i % 8, False),
    "3 of 4 of one, unmerged": (lambda i: 0 if i % 4 else 1 + i // 4, False),
    "3 of 4 of one, mixed": (lambda i: 0 if i % 4 else 1 + i // 4, True),
}


def speeds(model: LoadedModel, adapters: Sequence[CanonicalAdapter], turns: int) -> Iterator[Speed]:
    """In turn, so that whatever else runs on the machine disturbs all alike."""
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    policy = Told()
    rigs = rig(model, adapters, policy)
    for _ in range(turns):
        for kind, (adapter, merges) in KINDS.items():
            policy.wanted = rigs.digests[0] if merges else None
            running = [rigs.submit(adapter(i), 100) for i in range(SEATS)]
            for _ in range(WARM):
                rigs.step_ms()
            taken[kind].append(statistics.median(rigs.step_ms() for _ in range(7)))
            for request in running:
                rigs.engine.cancel(request)
    base = taken["no adapter"]
    for kind, each in taken.items():
        over = statistics.median(a / b for a, b in zip(each, base, strict=True))
        yield Speed(kind, statistics.median(each), over)


def stall(model: LoadedModel, adapters: Sequence[CanonicalAdapter]) -> Iterator[Claim]:
    """Steps while an adapter is folded, to the steps before; all streams get a token in each."""
    policy = Told()
    one = rig(model, adapters, policy)
    before, during = [], []
    for turn in range(4):
        running = [one.submit(turn if i % 4 else 4 + i // 4, 100) for i in range(SEATS)]
        policy.wanted = None
        one.step_ms()
        before += [one.step_ms() for _ in range(8)]
        policy.wanted = one.digests[turn]
        during += [one.step_ms() for _ in range(WARM)]
        for request in running:
            one.engine.cancel(request)
    usual = statistics.median(before)
    yield Claim.at_most(2, "longest of the steps of a switch, in steps", max(during) / usual)
    yield Claim.at_most(
        2, "mean of the steps of a switch, in steps", statistics.fmean(during) / usual
    )


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens of a second of the processor's; milliseconds of a token, from its request's start to
    its end."""

    popularity: str
    policy: str
    tokens_per_second: float
    latency: float
    switches: int


RUNS: dict[str, Callable[[int], Policy | None]] = {
    "unmerged only": UnmergedOnly,
    "merged only": MergedOnly,
    "auto": POLICIES["auto"],
}


def asked_for(popularity: str, requests: int, seed: int) -> list[int]:
    """The adapter of each: uniform, as Zipf has it, or in stretches of one and of all."""
    drawn = random.Random(seed)
    weights = [(rank + 1) ** -1.0 if popularity == "Zipf" else 1.0 for rank in range(ADAPTERS)]
    of = drawn.choices(range(ADAPTERS), weights, k=requests)
    if popularity == "bursts":
        stretch = requests // 4
        for first in (stretch, 3 * stretch):
            of[first : first + stretch] = [drawn.randrange(ADAPTERS)] * stretch
    return of


class Course:
    """Requests of these adapters, with as many there as there are seats: the next comes when one
    ends, as where a gateway sends no more than can start."""

    def __init__(self, one: Rig, adapters: Sequence[int]) -> None:
        self.rig = one
        self._coming = list(reversed(adapters))
        self._begun: dict[RequestId, float] = {}
        self._latencies: list[float] = []
        self._tokens = len(adapters) * OUTPUT
        self._spent = 0.0  # milliseconds

    def step(self) -> bool:
        """Whether anything is left."""
        while self._coming and len(self._begun) < SEATS:
            self._begun[self.rig.submit(self._coming.pop())] = self._spent
        begun = clock()
        report = self.rig.engine.step()
        self._spent += (clock() - begun) * 1000
        for request, piece in report.pieces:
            if piece.finish_reason is not None:
                self._latencies.append((self._spent - self._begun.pop(request)) / OUTPUT)
        return bool(self._coming or self._begun)

    def result(self, popularity: str, policy: str) -> Run:
        merging = self.rig.engine.merging
        switches = 0 if merging is None else merging.state.switches
        rate = 1000 * self._tokens / self._spent
        return Run(popularity, policy, rate, statistics.fmean(self._latencies), switches)


def policies(
    model: LoadedModel, adapters: Sequence[CanonicalAdapter], requests: int
) -> Iterator[Run]:
    """Step by step in turn, so that whatever else runs disturbs all alike."""
    for popularity in ("uniform", "Zipf", "bursts"):
        of = asked_for(popularity, requests, seed=0)
        courses = {
            name: Course(rig(model, adapters, make(SEATS)), of) for name, make in RUNS.items()
        }
        left = set(courses)
        while left:
            left = {name for name in courses if name in left and courses[name].step()}
        for name, course in courses.items():
            found = course.result(popularity, name)
            print(found, flush=True)
            yield found


def compared(runs: Sequence[Run]) -> Iterator[Claim]:
    for popularity in ("uniform", "Zipf", "bursts"):
        rate = {each.policy: each.tokens_per_second for each in runs
                if each.popularity == popularity}  # fmt: skip
        least = 1.0 if popularity == "bursts" else 0.97
        over = rate["auto"] / max(rate["unmerged only"], rate["merged only"])
        text = f"{popularity}: throughput, auto over the better of the fixed"
        yield Claim.at_least(least, text, over)


def measured(asked: argparse.Namespace) -> dict[str, list[dict[str, object]]]:
    model = load_model(embedded_model())
    few = shortened(model, asked.layers)
    adapters = list(random_adapters(model.card, ADAPTERS, ranks=[16]))
    small = list(random_adapters(few.card, ADAPTERS, ranks=[64]))
    figures: dict[str, list[dict[str, object]]] = {"claims": []}
    claims: list[Claim] = []
    if "exact" in asked.parts:
        one_layer = shortened(model, 1)
        least = list(random_adapters(one_layer.card, ADAPTERS, ranks=[16]))
        trained = [read_adapter(EXAMPLES / name, model.card) for name in ("pirate", "json")]
        claims += exactness(model, trained, "trained")
        claims += [*exactness(model, adapters, "random"), switches(one_layer, least)]
    if "speed" in asked.parts:
        found = list(speeds(model, adapters, asked.turns))
        figures["steps"] = [asdict(each) for each in found]
        by = {each.batch: each for each in found}
        claims.append(Claim.at_least(0.98, "throughput, one merged over no adapter",
                                     1 / by["one, merged"].over))  # fmt: skip
        claims += stall(model, adapters)
    if "policies" in asked.parts:
        runs = list(policies(few, small, asked.requests))
        figures["policies"] = [asdict(each) for each in runs]
        claims += compared(runs)
    for claim in claims:
        print(f"{claim.holds:>4} {claim.claim}: {claim.value:.3g} ({claim.target})")
    figures["claims"] = [asdict(claim) for claim in claims]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.merged_weights")
    parser.add_argument("--parts", default="exact,speed,policies")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--layers", type=int, default=4, help="that policies are compared with")
    parser.add_argument("--requests", type=int, default=400)
    asked = parser.parse_args()
    figures = settled_thread(1).submit(measured, asked).result()
    save("merged_weights", dict(figures))


if __name__ == "__main__":
    main()
