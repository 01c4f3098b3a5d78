"""Who asks first learns what the batcher would do."""

import random
from typing import Any

import pytest

from services.core.types import Digest, RequestId, SamplingParams
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest

PAGES, PAGE_TOKENS = 20, 4
OURS, THEIRS = Digest("a" * 64), Digest("b" * 64)


def request(
    name: str, prompt: int = 4, output: int = 4, adapter: Digest | None = None
) -> EngineRequest:
    sampling = SamplingParams(max_tokens=output)
    return EngineRequest(RequestId(name), (1,) * prompt, sampling, adapter)


class Bench:
    def __init__(self, **limits: Any) -> None:
        settings = Limits(page_tokens=PAGE_TOKENS, **{"watermark": 0.0, **limits})
        self.pool = Pool(PAGES, page_tokens=PAGE_TOKENS, keeps_prefixes=False)
        self.batcher = Batcher(limits=settings, pool=self.pool, context_tokens=1000)

    def load(self, adapter: Digest, pages: int) -> None:
        assert self.pool.reserve(adapter, pages, keep=0) is not None
        self.pool.activate(adapter)

    def starts(self, wanted: EngineRequest) -> bool:
        """What the next step in truth does."""
        self.batcher.submit(wanted)
        return wanted.id in self.step()

    def step(self) -> set[RequestId]:
        """Who runs; whoever has all its tokens ends."""
        ran = set()
        for part in self.batcher.plan().slices:
            sequence = part.sequence
            ran.add(sequence.request.id)
            sequence.cached += part.count
            if part.samples:
                sequence.tokens.append(1)
            if len(sequence.tokens) == self.batcher.end_of(sequence):
                self.batcher.retire(sequence)
        return ran


@pytest.mark.parametrize("seed", range(5))
def test_it_says_what_the_next_step_does(seed: int) -> None:
    random_, answers = random.Random(seed), []
    bench = Bench(max_sequences=4, watermark=random_.choice([0.0, 0.1]))
    bench.load(OURS, 5)
    for number in range(2000):
        if random_.random() < 0.7:
            bench.step()
        lengths = random_.randrange(1, 40), random_.randrange(1, 30)
        wanted = request(str(number), *lengths, random_.choice([None, OURS, THEIRS]))
        answers.append(bench.batcher.has_room(wanted))
        assert bench.starts(wanted) == answers[-1]
        if not answers[-1]:
            bench.batcher.cancel(wanted.id)
    assert 200 < sum(answers) < 1800


def test_who_waits_already_has_the_room() -> None:
    bench = Bench()
    bench.batcher.submit(request("first", prompt=40, output=24))  # 16 of 20 pages
    assert bench.batcher.has_room(request("small", prompt=8, output=8))
    assert not bench.batcher.has_room(request("large", prompt=8, output=9))
    assert bench.starts(request("small", prompt=8, output=8))


def test_who_runs_is_promised_all_that_it_will_need() -> None:
    bench = Bench()
    bench.starts(request("first", prompt=4, output=60))  # holds 1 page, needs 16
    assert bench.pool.available == PAGES - 1
    assert not bench.batcher.has_room(request("large", prompt=8, output=9))


def test_who_waits_takes_a_place_among_the_sequences() -> None:
    bench = Bench(max_sequences=2)
    bench.batcher.submit(request("first"))
    assert bench.batcher.has_room(request("second"))
    bench.batcher.submit(request("second"))
    assert not bench.batcher.has_room(request("third"))


def test_a_full_queue_has_no_room() -> None:
    bench = Bench(max_waiting=1)
    bench.batcher.submit(request("first"))
    assert not bench.batcher.has_room(request("second"))


def test_the_watermark_counts_as_soon_as_anybody_is_ahead() -> None:
    bench = Bench(watermark=0.5)
    large = request("large", prompt=40, output=4)
    assert bench.batcher.has_room(large)
    bench.batcher.submit(request("first"))
    assert not bench.batcher.has_room(large)


def test_idle_adapters_make_room_but_for_those_that_are_needed() -> None:
    bench = Bench()
    bench.load(OURS, 10)
    large = request("large", prompt=40, output=16)  # 14 pages
    assert bench.batcher.has_room(large)
    assert not bench.batcher.has_room(request("ours", prompt=40, output=16, adapter=OURS))
    bench.batcher.submit(request("first", adapter=OURS))
    assert not bench.batcher.has_room(large)


def test_an_adapter_that_is_not_there_yet_leaves_its_requests_without_room() -> None:
    bench = Bench()
    assert not bench.batcher.has_room(request("ours", adapter=OURS))
    bench.load(OURS, 1)
    assert bench.batcher.has_room(request("ours", adapter=OURS))


def test_clustering_looks_at_those_who_wait_too() -> None:
    bench = Bench(clustered_adapters=1)
    bench.load(OURS, 1)
    bench.load(THEIRS, 1)
    bench.batcher.submit(request("first", adapter=OURS))
    assert bench.batcher.has_room(request("second", adapter=OURS))
    assert not bench.batcher.has_room(request("third", adapter=THEIRS))
