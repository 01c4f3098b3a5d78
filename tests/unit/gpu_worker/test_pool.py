"""One pool for sequences, adapters and prefixes: who makes room for whom."""

import pytest

from services.core.errors import ResourceExhausted
from services.core.types import Digest, RequestId, SamplingParams
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest, Sequence

ONE, TWO, THREE = Digest("1"), Digest("2"), Digest("3")
SIZE, PAGE = 20, 4


@pytest.fixture
def pool() -> Pool:
    return Pool(SIZE, page_tokens=PAGE)


def sequence(tokens: int, adapter: Digest | None = None, salt: str = "") -> Sequence:
    request = EngineRequest(
        RequestId("r"), tuple(range(tokens)), SamplingParams(max_tokens=1), adapter, salt
    )
    return Sequence(request, arrived=0)


def load(pool: Pool, adapter: Digest, pages: int) -> None:
    pool.tick()
    assert pool.reserve(adapter, pages, keep=0) is not None
    pool.activate(adapter)


def finish(pool: Pool, running: Sequence) -> None:
    """As if all of its tokens had been computed."""
    pool.tick()
    assert pool.grow(running, len(running.tokens))
    running.cached = len(running.tokens)
    pool.take_back(running)


def test_idle_pages_are_as_good_as_free(pool: Pool) -> None:
    load(pool, ONE, 8)
    finish(pool, sequence(12))
    assert pool.available == SIZE
    assert pool.pages.num_free == SIZE - 8 - 3
    big = sequence(SIZE * PAGE)
    assert pool.grow(big, SIZE * PAGE)
    assert pool.evicted() == [ONE]
    assert pool.available == 0


def test_a_pinned_adapter_never_leaves(pool: Pool) -> None:
    load(pool, ONE, 8)
    load(pool, TWO, 8)
    pool.residency.pin(ONE)
    for _ in range(3):  # the other is worth more
        pool.tick()
        pool.residency.pin(TWO)
        pool.residency.unpin(TWO)
    assert pool.available == 12
    assert not pool.grow(sequence(52), 52)
    assert pool.grow(sequence(48), 48)
    assert pool.evicted() == [TWO]
    with pytest.raises(ValueError, match="pinned"):
        pool.residency.drop(ONE)


def test_the_adapter_that_is_used_less_leaves_first(pool: Pool) -> None:
    load(pool, ONE, 8)
    load(pool, TWO, 8)
    for adapter in (ONE, ONE, TWO, ONE):
        pool.tick()
        pool.residency.pin(adapter)
        pool.residency.unpin(adapter)
    load(pool, THREE, 8)
    assert pool.evicted() == [TWO]


def test_of_two_adapters_used_alike_the_one_that_costs_more_to_load_by_its_size_stays(
    pool: Pool,
) -> None:
    load(pool, ONE, 2)
    load(pool, TWO, 12)
    pool.residency.step = 0
    for adapter in (ONE, TWO):
        pool.residency.pin(adapter)
        pool.residency.unpin(adapter)
    load(pool, THREE, 10)
    assert pool.evicted() == [TWO]


def test_an_adapters_prefixes_leave_before_it_does(pool: Pool) -> None:
    load(pool, ONE, 6)
    for salt in ("a", "b"):
        running = sequence(12, ONE, salt)
        pool.residency.pin(ONE)
        finish(pool, running)
        pool.residency.unpin(ONE)
    assert len(pool.prefixes) == 6
    assert pool.grow(sequence(11 * PAGE), 11 * PAGE)  # 8 are free
    assert pool.evicted() == []
    assert len(pool.prefixes) == 3
    assert pool.grow(sequence(4 * PAGE), 4 * PAGE)
    assert pool.evicted() == [ONE]
    assert len(pool.prefixes) == 0


def test_pages_that_are_promised_are_not_given_to_adapters(pool: Pool) -> None:
    assert pool.reserve(ONE, 8, keep=13) is None
    assert pool.reserve(ONE, 8, keep=12) is not None
    assert not pool.residency.holds(ONE)
    assert pool.available == 12  # reserved pages are nobody's to take
    with pytest.raises(ResourceExhausted):
        pool.reserve(TWO, SIZE, keep=0)
    with pytest.raises(ValueError, match="twice"):
        pool.reserve(ONE, 1, keep=0)


def test_a_known_prefix_is_shared_and_stays_while_it_is_used(pool: Pool) -> None:
    finish(pool, sequence(12))
    first, second = sequence(12), sequence(12)
    pool.match(first)
    pool.match(second)
    assert first.pages == second.pages
    assert first.cached == 8  # the last token is left to compute
    assert pool.available == SIZE - 2
    assert not pool.grow(sequence(19 * PAGE), 19 * PAGE)
    for running in (first, second):
        assert pool.grow(running, 12)
        running.cached = 12
        pool.take_back(running)
    assert pool.available == SIZE
    assert len(pool.prefixes) == 3


def test_what_is_only_partly_filled_is_not_kept(pool: Pool) -> None:
    running = sequence(11)
    assert pool.grow(running, 11)
    running.cached = 9
    pool.take_back(running)
    assert len(pool.prefixes) == 2
    assert pool.pages.num_free == SIZE - 2
