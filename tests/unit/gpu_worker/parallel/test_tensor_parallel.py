"""A model dealt out to a group: the logits of the whole one, and no bytes but S-LoRA's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from services.core.errors import FailedPrecondition
from services.core.types import RequestId
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.parallel.collectives import Matter
from services.gpu_worker.model.parallel.member import Partition
from tests.engines import TestBench
from tests.parallel import GroupBench, asked, group, lora, written
from tests.references import EVERY_LINEAR
from tests.tiny_models import make_reference, save_reference

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SIZES = (2, 4)
FLOAT = 4


def answers_of(bench: TestBench, files: Mapping[str, bytes]) -> dict[RequestId, list[int]]:
    """In one batch with the base model."""
    return bench.generate(
        asked({"base": None, **{name: bench.load(data) for name, data in files.items()}})
    )


def assert_the_same(bench: GroupBench, whole: TestBench, files: Mapping[str, bytes]) -> None:
    expected, found = answers_of(whole, files), answers_of(bench, files)
    assert found == expected
    for request in expected:
        torch.testing.assert_close(bench.logits(request), whole.logits(request), atol=1e-4, rtol=0)
    assert len({tuple(tokens) for tokens in found.values()}) > len(files)  # adapters do something
    assert bench.pool.available == bench.pool.size


@pytest.mark.parametrize("members", SIZES)
@pytest.mark.parametrize("partition", [Partition.SHARDED, Partition.REPLICATED])
def test_a_mixed_batch_has_the_logits_of_the_whole_model(
    members: int, partition: Partition, folder: Path, model: LoadedModel, adapters: dict[str, bytes]
) -> None:
    with group(folder, members, partition) as bench:
        assert_the_same(bench, TestBench(model, pages=400), adapters)
        assert (bench.collectives.traffic.sent[Matter.LORA] > 0) == (partition == "sharded")


@pytest.mark.parametrize("family", ["llama-rope3", "llama-wide-heads", "qwen2", "qwen3", "mistral"])
def test_so_has_one_of_every_family(family: str, tmp_path: Path) -> None:
    """Tied embeddings, heads that are wider together than the model, norms of heads, windows."""
    reference = make_reference(family)
    folder = save_reference(reference, tmp_path)
    whole = load_model(folder)
    files = written(reference, whole, {"all-8": lora(8, EVERY_LINEAR)})
    with group(folder, 2) as bench:
        assert_the_same(bench, TestBench(whole, pages=400), files)


@pytest.mark.parametrize("members", SIZES)
def test_so_has_one_of_block_diagonal_adapters_without_an_exchange(
    members: int, folder: Path, model: LoadedModel, reference: Any
) -> None:
    configs = {"all-8": lora(8, EVERY_LINEAR), "qv-16": lora(16, ["q_proj", "v_proj"])}
    files = written(reference, model, configs, blocks=members)
    with group(folder, members, Partition.BLOCK_DIAGONAL) as bench:
        assert_the_same(bench, TestBench(model, pages=400), files)
        assert bench.collectives.traffic.calls[Matter.LORA] == 0


def test_adapters_that_are_not_block_diagonal_are_refused_there(
    folder: Path, adapters: dict[str, bytes]
) -> None:
    with (
        group(folder, 2, Partition.BLOCK_DIAGONAL) as bench,
        pytest.raises(FailedPrecondition, match=r"0\.q is not block-diagonal over 2 processes"),
    ):
        bench.load(adapters["all-8"])


@pytest.mark.parametrize("members", SIZES)
@pytest.mark.parametrize(("targets", "factor"), [(ATTENTION, 5), (EVERY_LINEAR, 9)])
def test_bytes_for_adapters_are_what_the_formula_says(
    members: int,
    targets: list[str],
    factor: int,
    folder: Path,
    model: LoadedModel,
    reference: Any,
) -> None:
    """5 (N - 1) B r / N numbers for an attention block, 4 for an MLP, of B rows of rank r each; and
    2 (N - 1) B h / N for each of the base's sums. Each linear has one exchange a step, however
    many adapters run."""
    ranks = {f"r{rank}": lora(rank, targets) for rank in (4, 8, 32)}
    files = written(reference, model, ranks)
    with group(folder, members) as bench:
        digests = {name: bench.load(data) for name, data in files.items()}
        bench.generate(asked({"base": None, **digests}))
        rank_of = {digest: int(name[1:]) for name, digest in digests.items()} | {None: 0}
        steps, traffic = bench.runner.steps, bench.collectives.traffic
        rows = sum(len(step.tokens) for step in steps)
        of_ranks = sum(
            (end - first) * rank_of[adapter]
            for step in steps
            for first, end, adapter in step.adapters
        )
    layers, others = model.network.config.layers, members - 1
    assert traffic.sent[Matter.LORA] == layers * factor * others * of_ranks * FLOAT / members
    assert traffic.calls[Matter.LORA] == len(steps) * layers * (2 if factor == 5 else 4)
    hidden = model.network.config.hidden
    assert traffic.sent[Matter.BASE] == layers * 2 * 2 * others * rows * hidden * FLOAT / members
    assert traffic.calls[Matter.BASE] == len(steps) * layers * 2


def test_the_base_model_alone_exchanges_nothing_for_adapters(
    folder: Path, adapters: dict[str, bytes]
) -> None:
    with group(folder, 2) as bench:
        bench.load(adapters["all-8"])
        bench.generate(asked({"base": None}))
        assert bench.collectives.traffic.calls[Matter.LORA] == 0
