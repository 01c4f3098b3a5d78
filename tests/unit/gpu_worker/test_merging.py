"""An adapter in the weights, beside others or alone: the same answers, and the base as it was."""

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from services.core.types import Digest, RequestId
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.merging import FOLD_STEPS, MergeMode
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.kernels.cpu import linear
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.merging import SecondWeights
from services.policies.merging.batches import Policy
from services.policies.merging.fixed import MergedOnly
from tests.engines import TestBench, greedy
from tests.merging import Told, merge
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference

PROMPT = list(range(2, 25))
NAMES = ("all-8", "qv-4", "all-64")


@pytest.fixture(scope="module")
def reference() -> Any:
    return make_reference("qwen2")  # with biases


@pytest.fixture(scope="module")
def model(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tmp_path_factory.mktemp("tiny")
    return load_model(save_reference(reference, folder))


@pytest.fixture(scope="module")
def adapters(reference: Any, model: LoadedModel) -> list[bytes]:
    files = []
    for seed, name in enumerate(NAMES):
        adapted: Any = adapt(reference, adapter_configs()[name], seed=seed)
        files.append(canonical_of(adapted, model.card.fingerprint))
        adapted.unload()
    return files


def crowd(digests: Sequence[Digest | None], tokens: int = 40) -> list[EngineRequest]:
    return [
        greedy(f"{number}-{turn}", PROMPT[turn:], digest, tokens)
        for number, digest in enumerate(digests)
        for turn in range(2)
    ]


def loaded(
    model: LoadedModel, adapters: Sequence[bytes], merging: Policy | None
) -> tuple[TestBench, list[Digest]]:
    bench = TestBench(model, pages=300, merging=merging)
    return bench, [bench.load(data) for data in adapters]


def bytes_of(model: LoadedModel) -> str:
    """A hash of all that the model's own weights are."""
    network = model.network
    found = hashlib.sha256(network.embedding.numpy().tobytes())
    for layer in network.stack:
        for each in layer.linears:
            assert isinstance(each, linear.Linear)
            found.update(each.weight.numpy().tobytes())
            found.update(b"" if each.bias is None else each.bias.numpy().tobytes())
    return found.hexdigest()


def test_merged_mixed_and_unmerged_give_the_same_answers(
    model: LoadedModel, adapters: list[bytes]
) -> None:
    """D2, with requests of the base model and of every adapter in each batch."""
    plain, digests = loaded(model, adapters, None)
    everyone: list[Digest | None] = [None, *digests]
    expected = plain.generate(crowd(everyone))
    for digest in digests:
        policy = Told()
        bench, _ = loaded(model, adapters, policy)
        policy.wanted = digest
        found = bench.generate(crowd(everyone))
        assert found == expected
        assert any(batch.merged == digest and batch.minority for batch in policy.ran_batches)
        for request in expected:
            torch.testing.assert_close(
                bench.logits(request), plain.logits(request), atol=1e-4, rtol=0
            )


def test_an_adapter_alone_in_the_weights_gives_its_answers(
    model: LoadedModel, adapters: list[bytes]
) -> None:
    """D2; nothing is left to its kernels."""
    plain, [digest, *_] = loaded(model, adapters, None)
    expected = plain.generate(crowd([digest]))
    policy = Told()
    bench, _ = loaded(model, adapters, policy)
    policy.wanted = digest
    assert bench.generate(crowd([digest])) == expected
    assert bench.engine.merging is not None
    assert bench.engine.merging.state.mode is MergeMode.MERGED


def test_no_switch_changes_a_byte_of_the_base(model: LoadedModel, adapters: list[bytes]) -> None:
    """D2: a thousand of them, in any order, some given up half way."""
    before = bytes_of(model)
    bench, digests = loaded(model, adapters, None)
    runner = bench.runner
    runner._second = SecondWeights(model.network)
    pages = {
        digest: bench.pool.spare(bench.pool.residency.pages_of(digest), keep=0)
        for digest in digests
    }
    drawn = random.Random(0)
    for _ in range(1000):
        if drawn.random() < 0.3:
            runner.use_own()
            continue
        digest = drawn.choice(digests)
        taken = pages[digest]
        assert taken is not None
        runner.begin_fold(digest, taken)
        for _ in range(drawn.choice((1, runner.folds))):
            done = runner.fold()
        if done:
            runner.use_folded()
    assert bytes_of(model) == before
    runner.use_own()
    fresh, _ = loaded(model, adapters, None)
    assert bench.generate(crowd(digests)) == fresh.generate(crowd(digests))


def test_streams_go_on_in_every_step_of_a_switch(model: LoadedModel, adapters: list[bytes]) -> None:
    policy = Told()
    bench, digests = loaded(model, adapters, policy)
    for request in crowd(digests, tokens=150):
        bench.engine.submit(request)
    bench.engine.step()
    for wanted in (digests[0], digests[1], None, digests[2]):
        policy.wanted = wanted
        for _ in range(FOLD_STEPS + 2):
            folded = 0
            fold = bench.runner.fold

            def counted(fold: Callable[[], bool] = fold) -> bool:
                nonlocal folded
                folded += 1
                return fold()

            bench.runner.fold = counted  # type: ignore[method-assign]
            report = bench.engine.step()
            bench.runner.fold = fold  # type: ignore[method-assign]
            assert len(report.pieces) == 6
            assert folded <= -(-bench.runner.folds // FOLD_STEPS)


def test_who_pauses_goes_on_with_what_it_had(model: LoadedModel, adapters: list[bytes]) -> None:
    plain, digests = loaded(model, adapters, None)
    expected = plain.generate(crowd(digests))
    bench, _ = loaded(model, adapters, MergedOnly(Limits().max_sequences))
    assert bench.generate(crowd(digests)) == expected
    assert bench.engine.merging is not None
    assert bench.engine.merging.state.switches > len(digests)
    bench.engine.merging.let_go()
    assert bench.pool.available == bench.pool.size
    assert bench.pool.residency.pins == 0


def test_an_adapter_in_the_weights_gives_way_to_who_needs_its_pages(
    model: LoadedModel, adapters: list[bytes]
) -> None:
    policy = Told()
    bench = TestBench(model, pages=30, merging=policy)
    digest = bench.load(adapters[0])
    held = bench.pool.residency.pages_of(digest)
    bench.engine.submit(greedy("hot", PROMPT[:4], digest, FOLD_STEPS + 4))
    merge(bench, policy, digest)
    while not bench.engine.step().is_idle:
        pass
    assert bench.pool.available == 30 - 2 * held
    large = greedy("large", PROMPT, digest, min(16 * (30 - held), 256) - len(PROMPT))
    bench.engine.submit(large)
    assert bench.engine.step().is_idle
    assert not bench.engine.step().is_idle
    assert bench.engine.merging is not None
    assert bench.engine.merging.state.adapter is None


def test_a_request_that_is_cancelled_is_no_matter(
    model: LoadedModel, adapters: list[bytes]
) -> None:
    policy = Told()
    bench, digests = loaded(model, adapters, policy)
    policy.wanted = digests[0]
    for request in crowd(digests):
        bench.engine.submit(request)
    for _ in range(3):
        bench.engine.step()
    bench.engine.cancel(RequestId("0-0"))
    bench.engine.cancel(RequestId("0-1"))
    policy.wanted = None
    assert not bench.engine.step().is_idle
