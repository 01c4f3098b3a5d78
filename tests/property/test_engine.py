"""Ten thousand random operations leave nothing behind, and no page is ever used twice."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from services.core.errors import ServingError
from services.core.types import Digest, RequestId, SamplingParams
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.engine import Engine, Sampled, Weights
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.plan import StepPlan
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest

PAGES, PAGE_TOKENS, CONTEXT = 60, 4, 120


@dataclass(frozen=True, slots=True)
class Sized:
    pages: int
    size_bytes: int = 0


class WatchfulRunner:
    """Answers at random, and checks what every plan may and may not touch."""

    def __init__(self, random_: random.Random) -> None:
        self._random = random_
        self.bound: dict[Digest, tuple[int, ...]] = {}
        self.written: dict[int, tuple[object, int]] = {}

    def run(self, plan: StepPlan) -> list[Sampled | None]:
        writers: Counter[int] = Counter()
        for part in plan.slices:
            sequence = part.sequence
            assert part.start == sequence.cached
            assert len(sequence.pages) * PAGE_TOKENS >= part.start + part.count
            adapter = sequence.request.adapter
            assert adapter is None or adapter in self.bound
            pages = {at // PAGE_TOKENS for at in range(part.start, part.start + part.count)}
            writers.update(sequence.pages[page] for page in pages)
        assert all(count == 1 for count in writers.values()), "two sequences write one page"
        taken = {page for pages in self.bound.values() for page in pages}
        assert not taken & writers.keys(), "a sequence writes over an adapter"
        return [
            Sampled(self._random.randrange(2, 9)) if part.samples else None for part in plan.slices
        ]

    def fill(self, weights: Weights, pages: Sequence[int]) -> None:
        assert len(pages) == weights.pages

    def bind(self, adapter: Digest, weights: Weights, pages: Sequence[int]) -> None:
        taken = {page for others in self.bound.values() for page in others}
        assert not taken & set(pages), "two adapters share a page"
        self.bound[adapter] = tuple(pages)

    def unbind(self, adapter: Digest) -> None:
        del self.bound[adapter]


class Chaos:
    """Submits, cancels, loads and steps at random."""

    def __init__(self, seed: int, *, keeps_prefixes: bool) -> None:
        self.random = random.Random(seed)
        self.pool = Pool(PAGES, page_tokens=PAGE_TOKENS, keeps_prefixes=keeps_prefixes)
        self.runner = WatchfulRunner(self.random)
        self.batcher = Batcher(
            limits=Limits(
                max_step_tokens=24, max_sequences=8, max_waiting=20, patience_steps=40,
                page_tokens=PAGE_TOKENS,
            ),
            pool=self.pool,
            context_tokens=CONTEXT,
        )  # fmt: skip
        self.engine = Engine(
            batcher=self.batcher, runner=self.runner, pool=self.pool, end_tokens=[8]
        )
        self.sizes = {Digest(str(i)): self.random.randrange(1, 20) for i in range(8)}
        self.open: set[RequestId] = set()
        self.filling: list[Digest] = []
        self.born = self.ended = 0

    def submit(self) -> None:
        self.born += 1
        name = RequestId(str(self.born))
        prompt = tuple(self.random.choices(range(2, 5), k=self.random.randrange(1, 60)))
        adapter = self.random.choice([None, *self.sizes])
        sampling = SamplingParams(max_tokens=self.random.randrange(1, 60))
        salt = self.random.choice("ab")
        try:
            self.engine.submit(EngineRequest(name, prompt, sampling, adapter, salt))
            self.open.add(name)
        except ServingError:
            self.ended += 1

    def cancel(self) -> None:
        if self.open:
            name = self.random.choice(sorted(self.open))
            self.engine.cancel(name)
            self.open.discard(name)
            self.ended += 1

    def load(self) -> None:
        for digest in sorted(self.engine.wanted()):
            weights = Sized(self.sizes[digest])
            try:
                fill = self.engine.reserve(digest, weights)
            except ServingError:
                continue
            if fill is not None:
                fill()
                self.filling.append(digest)

    def activate(self) -> None:
        if self.filling:
            self.engine.activate(self.filling.pop(self.random.randrange(len(self.filling))))

    def step(self) -> None:
        report = self.engine.step()
        for name, piece in report.pieces:
            assert name in self.open
            if piece.finish_reason is not None:
                self.open.discard(name)
                self.ended += 1
        for name, _ in report.refused:
            self.open.discard(name)
            self.ended += 1

    def check(self) -> None:
        running = self.batcher._running.values()
        holders = Counter(page for sequence in running for page in sequence.pages)
        holders.update(page for pages in self.runner.bound.values() for page in pages)
        for pages in self.pool._reserved.values():
            holders.update(pages)
        holders.update(list(self.pool.prefixes._by_page))
        for page in range(PAGES):
            assert self.pool.pages.holders(page) == holders[page]
        only_cached = [p for p in self.pool.prefixes._by_page if holders[p] == 1]
        assert self.pool.prefixes.idle == len(only_cached)
        bound = self.runner.bound.items()
        idle = sum(len(pages) for name, pages in bound if self.pool.residency.is_idle(name))
        assert self.pool.residency.idle_pages == idle
        assert self.pool.residency.pins == sum(s.request.adapter is not None for s in running)


@pytest.mark.parametrize("keeps_prefixes", [True, False], ids=["prefixes", "plain"])
@pytest.mark.parametrize("seed", range(4))
def test_random_operations_leave_pages_and_pins_at_baseline(
    seed: int, keeps_prefixes: bool
) -> None:
    chaos = Chaos(seed, keeps_prefixes=keeps_prefixes)
    moves = [chaos.submit, chaos.cancel, chaos.load, chaos.activate, chaos.step, chaos.step]
    for _ in range(10_000):
        chaos.random.choice(moves)()
        chaos.check()
    for _ in range(3_000):  # everything that is open comes to an end
        chaos.load()
        chaos.activate()
        chaos.step()
        if not chaos.open:
            break
    assert not chaos.open
    assert chaos.ended == chaos.born
    while chaos.filling:
        chaos.activate()
    chaos.check()
    assert chaos.pool.available == PAGES
    assert chaos.batcher.num_running == chaos.batcher.num_waiting == 0
