"""Recorded steps against steps that are run as they come: the same logits, the same pages.

Where there is no CUDA a replay does the recorded work anew, with what it was recorded with.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.gpu_model import TINY, made_model, random_packing
from services.core.types import Digest
from services.gpu_worker.kernels.cuda.config import config_for
from services.gpu_worker.kernels.cuda.deltas import Chunked
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.kernels.cuda.fixed import FixedInputs
from services.gpu_worker.kernels.device import Span
from services.gpu_worker.model.adapters import AdapterWeights
from services.gpu_worker.model.arena import page_elements
from services.gpu_worker.model.graphs import Bucket, padded, reach_for, repeats, rows_for
from services.gpu_worker.model.runner import TorchRunner
from services.gpu_worker.model.step import StepNumbers
from tests.operations import Heard

PLACE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CONFIG = replace(TINY, layers=1, context=64)
PAGE = 16
PAGES = 80
A, B, LARGE = Digest("a" * 64), Digest("b" * 64), Digest("c" * 64)
RANKS = {A: 4, B: 8, LARGE: 24}
FROM_THE_HOST = {"item", "_local_scalar_dense", "lift_fresh", "nonzero", "masked_select"}


class Worlds:
    """One network in two runners, of which one records. Their pages hold the same, and adapters."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        device = CudaDevice(PLACE, torch.float32, replace(config_for(PLACE), beside=True))
        network = made_model(CONFIG, device)
        self.plain = TorchRunner(network, pages=PAGES, page_tokens=PAGE)
        self.graphed = TorchRunner(network, pages=PAGES, page_tokens=PAGE, graph_bytes=1)
        elements = page_elements(CONFIG, PAGE)
        before = torch.randn(PAGES, elements, device=PLACE)
        packings = {name: random_packing(CONFIG, rank, elements) for name, rank in RANKS.items()}
        for runner in (self.plain, self.graphed):
            runner._arena.memory.fill_(torch.nan)
            runner._arena.memory[:PAGES] = before
            free = iter(range(8, PAGES))
            for name, packing in packings.items():
                weights = AdapterWeights(replace(packing, image=device.stage(packing.image)))
                pages = [next(free) for _ in range(weights.pages)]
                runner.fill(weights, pages)
                runner.bind(name, weights, pages)

    @property
    def buckets(self) -> list[Bucket]:
        assert self.graphed._graphs is not None
        return list(self.graphed._graphs._held)

    def inputs(self, bucket: Bucket) -> FixedInputs:
        assert self.graphed._graphs is not None
        inputs = self.graphed._graphs._held[bucket].inputs
        assert isinstance(inputs, FixedInputs)
        return inputs

    @torch.inference_mode()
    def check(self, step: StepNumbers) -> None:
        found, wanted = self.graphed.compute(step), self.plain.compute(step)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        memory = self.graphed._arena.memory[:PAGES]
        torch.testing.assert_close(memory, self.plain._arena.memory, atol=1e-5, rtol=0)


@pytest.fixture
def worlds() -> Worlds:
    return Worlds()


def a_step(
    at: Sequence[int], adapters: Sequence[Digest | None], tables: Sequence[Sequence[int]]
) -> StepNumbers:
    """One token of each sequence, at a position; its adapter; its pages."""
    spans = [
        Span(row, 1, position, pages)
        for row, (position, pages) in enumerate(zip(at, tables, strict=True))
    ]
    whose = [(row, row + 1, adapter) for row, adapter in enumerate(adapters)]
    return StepNumbers([3 + row for row in range(len(at))], spans, whose, range(len(at)))


def test_a_replayed_step_is_as_one_that_is_not(worlds: Worlds) -> None:
    """The second and the third are replays, with other places, adapters and numbers of rows."""
    worlds.check(a_step([5, 20, 3, 31], [None, A, B, B], [[0], [1, 2], [3], [4, 5]]))
    worlds.check(a_step([6, 16, 4], [None, None, B], [[0], [5, 6], [3]]))
    worlds.check(a_step([3, 21, 47], [A, A, B], [[3], [2, 1], [7, 4, 0]]))
    assert worlds.buckets == [Bucket(4, 64, adapts=True, folded=False)]


def test_a_step_without_adapters_has_a_graph_without_them(worlds: Worlds) -> None:
    worlds.check(a_step([5], [None], [[0]]))
    [bucket] = worlds.buckets
    assert bucket == Bucket(1, 64, adapts=False, folded=False)
    assert not isinstance(worlds.inputs(bucket).deltas, Chunked)


def test_for_larger_adapters_steps_are_recorded_anew(worlds: Worlds) -> None:
    worlds.check(a_step([5, 20], [A, B], [[0], [1, 2]]))
    [bucket] = worlds.buckets
    before = worlds.inputs(bucket)
    worlds.check(a_step([6, 21], [A, LARGE], [[0], [1, 2]]))
    assert worlds.inputs(bucket) is not before
    after = worlds.inputs(bucket)
    worlds.check(a_step([7, 22], [A, B], [[0], [1, 2]]))
    assert worlds.inputs(bucket) is after


def addresses(inputs: FixedInputs) -> list[int]:
    decodes = inputs.layout.decodes
    assert decodes is not None
    assert isinstance(inputs.deltas, Chunked)
    every: list[Tensor] = [inputs.tokens, inputs.positions, inputs.pages, inputs.offsets]
    every += [inputs.rows, decodes.rows, decodes.starts, decodes.ends, decodes.tables]
    return [tensor.data_ptr() for tensor in (*every, inputs.deltas._chunks, inputs.deltas._h)]


def test_what_is_replayed_takes_all_from_memory_that_stays(worlds: Worlds) -> None:
    """As a graph has to: no address changes, and nothing in it comes from the host."""
    first = a_step([5, 20], [A, B], [[0], [1, 2]])
    worlds.check(first)
    [bucket] = worlds.buckets
    before = addresses(worlds.inputs(bucket))
    worlds.check(a_step([6, 37], [None, B], [[0], [2, 3, 4]]))
    assert addresses(worlds.inputs(bucket)) == before
    assert worlds.graphed._graphs is not None
    graph = worlds.graphed._graphs._held[bucket].graph
    with torch.inference_mode(), Heard() as heard:
        graph.replay()
    assert "index" in heard.names or torch.cuda.is_available()
    assert not heard.names & FROM_THE_HOST


def test_steps_are_run_as_they_come_where_there_is_no_memory_for_more(worlds: Worlds) -> None:
    assert worlds.graphed._graphs is not None
    worlds.graphed._graphs._most_bytes = 0
    worlds.check(a_step([5], [None], [[0]]))
    assert worlds.buckets == []


def test_a_prompt_is_run_as_it_comes(worlds: Worlds) -> None:
    prompt = StepNumbers([3, 4, 5], [Span(0, 3, 0, [0])], [(0, 3, None)], [2])
    assert not repeats(prompt)
    assert not repeats(replace(prompt, tokens=[3], spans=[Span(0, 1, 0, [0])], sampling_rows=[]))
    assert repeats(a_step([5], [None], [[0]]))


def test_buckets_are_few_and_none_is_too_small() -> None:
    assert [rows_for(count) for count in (1, 2, 3, 4, 5, 8, 9, 64)] == [1, 2, 4, 4, 8, 8, 16, 64]
    assert [reach_for(tokens, 8192) for tokens in (1, 256, 257, 4097)] == [256, 256, 1024, 8192]
    assert reach_for(17, 100) == 100


def test_a_step_is_filled_up_with_rows_of_a_page_of_their_own() -> None:
    step = padded(a_step([5, 20, 3], [None, A, A], [[0], [1, 2], [3]]), 4, 99)
    assert step.spans[3] == Span(3, 1, 0, (99,))
    assert (len(step.tokens), len(step.spans), list(step.sampling_rows)) == (4, 4, [0, 1, 2, 3])
    assert step.adapters[-1][1] == 3
