"""What bench.gpu counts and decides, without a GPU."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from triton.runtime.errors import OutOfResources

from bench.gpu_engines import digest
from bench.gpu_model import FULL, LLAMA_8B
from bench.gpu_plot import KINDS, figure
from bench.gpu_pressure import Split
from bench.gpu_roofline import Point, Roof
from bench.gpu_steps import adapter_elements, step_bytes
from bench.gpu_tune import best_of, launches
from bench.resources import read
from services.core.types import RequestId, SamplingParams
from services.gpu_worker.engine.sequence import EngineRequest, Sequence
from services.gpu_worker.kernels.cuda.config import Config, Launch, config_for

CONFIG = config_for(torch.device("cpu"))


def test_a_step_reads_weights_keys_values_and_adapters() -> None:
    """As worked out by hand for Llama 3.1 8B: 16 GB, 128 KiB a token, 84 MB an adapter."""
    assert adapter_elements(LLAMA_8B) * 2 == pytest.approx(83.9e6, rel=1e-3)
    none = replace(FULL, batch=0)
    embedding = LLAMA_8B.vocabulary * LLAMA_8B.hidden * 2  # of which a step reads some rows
    assert step_bytes(none, 0, itemsize=2) == pytest.approx(16.06e9 - embedding, rel=1e-3)
    one = replace(FULL, batch=1, prompt=100, steps=0)
    more = step_bytes(one, 0, itemsize=2) - step_bytes(none, 0, itemsize=2)
    assert more == 100 * 128 * 1024


def test_a_split_pool_lends_neither_part_to_the_other() -> None:
    pool = Split(10, for_adapters=4)
    request = EngineRequest(RequestId("1"), (1,), SamplingParams(max_tokens=9))
    sequence = Sequence(request, arrived=0)
    assert pool.reserve(digest(0), 3, keep=0) is not None
    pool.activate(digest(0))
    assert pool.available == 6
    assert pool.grow(sequence, 6 * pool.page_tokens)
    assert not pool.grow(sequence, 7 * pool.page_tokens)
    assert pool.pages.num_free == 1
    assert pool.reserve(digest(1), 4, keep=0) is not None
    assert pool.evicted() == [digest(0)]
    assert pool.reserve(digest(2), 1, keep=0) is None
    assert len(sequence.pages) == 6


def test_the_fastest_that_the_device_can_run_is_chosen() -> None:
    def work(config: Config) -> float:
        if config.shrink.block > 64:
            raise OutOfResources(1, 2, "shared memory")
        return 1 / config.shrink.block

    def choices(config: Config) -> Iterator[Config]:
        for block in (16, 32, 64, 128):
            yield replace(config, shrink=Launch(block, 4, 3))

    best, seconds = best_of(CONFIG, 1.0, work, choices)
    assert (best.shrink.block, seconds) == (64, 1 / 64)
    assert best_of(CONFIG, 0.001, work, choices) == (CONFIG, 0.001)


def test_only_what_goes_with_the_rest_is_tried() -> None:
    narrow = replace(CONFIG, split=32, decode=Launch(32, 4, 3))
    assert all(found.split % found.decode.block == 0 for found in launches("decode", narrow))
    assert any(True for _ in launches("decode", narrow))


def test_what_a_kernel_takes_says_how_many_blocks_there_is_room_for() -> None:
    line = "expand/16_rows bf16 warps={} shared={} narrow=0 registers={} stack=0"
    assert read(line.format(4, 0, 24)).blocks == 16  # warps
    assert read(line.format(4, 12_312, 72)).blocks == 7  # registers
    assert read(line.format(4, 82_432, 32)).blocks == 2  # shared memory


def test_kernels_are_drawn_under_the_lower_of_two_roofs() -> None:
    roof = Roof(4e12, 8e14)
    assert (roof.over(100), roof.over(200), roof.over(400)) == (4e14, 8e14, 8e14)
    points = [
        Point(kind, "", 1e9, 1e9 / intensity, 1e-5) for kind in KINDS for intensity in (1, 900)
    ]
    (line,) = figure(points, roof).axes[0].lines
    assert np.asarray(line.get_ydata()).tolist() == [0.5 * 4e12, 8e14, 8e14]
