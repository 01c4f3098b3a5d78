"""Models with base weights of eight bits: their answers, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from services.core.errors import FailedPrecondition
from services.core.types import Digest, RequestId
from services.gpu_worker.kernels.cpu import quantised
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.cpu.quantised import QuantisedLinear
from services.gpu_worker.kernels.rounding import Kind
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.merging import SecondWeights
from services.gpu_worker.model.runner import TorchRunner
from tests.engines import TestBench, greedy
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference

KINDS: list[Kind] = ["int8", "int8-dynamic"]


@pytest.fixture(scope="module")
def reference() -> Any:
    return make_reference("qwen2")  # with biases


@pytest.fixture(scope="module")
def folder(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reference(reference, tmp_path_factory.mktemp("tiny"))


def answers(
    model: LoadedModel, reference: Any, *, together: bool
) -> tuple[TestBench, list[Sequence[int]]]:
    """Of the base and an adapter to five prompts, in one batch or one after the other."""
    bench = TestBench(model, pages=200)
    adapted: Any = adapt(reference, adapter_configs()["all-8"], seed=1)
    digest = bench.load(canonical_of(adapted, model.card.fingerprint))
    adapted.unload()
    requests = [
        greedy(f"{index}-{adapter is None}", range(2, 5 + 6 * index), adapter, 12)
        for index in range(5)
        for adapter in (None, Digest(digest))
    ]
    found: dict[RequestId, list[int]] = {}
    for batch in [requests] if together else [[request] for request in requests]:
        found |= bench.generate(batch)
    return bench, [found[request.id] for request in requests]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_same_in_every_batch(kind: Kind, folder: Path, reference: Any) -> None:
    model = load_model(folder, device=CpuDevice(kind))
    _, alone = answers(model, reference, together=False)
    _, together = answers(model, reference, together=True)
    assert alone == together


def test_a_model_of_eight_bits_is_one_of_the_rounded_weights(
    folder: Path, reference: Any, tmp_path: Path
) -> None:
    ours, found = answers(load_model(folder, device=CpuDevice("int8")), reference, together=True)
    plain = make_reference("qwen2")
    for name, parameter in plain.named_parameters():
        if parameter.dim() == 2 and "embed" not in name:
            scales = parameter.detach().abs().amax(1, keepdim=True) / 127
            parameter.data.copy_((parameter.detach() / scales).round() * scales)
    model = load_model(save_reference(plain, tmp_path))
    theirs, wanted = answers(model, reference, together=True)
    assert found == wanted
    for request, logits in theirs.runner.logits.items():
        torch.testing.assert_close(ours.logits(request), torch.stack(logits), atol=1e-4, rtol=0)


def test_keys_and_values_go_only_to_weights_of_the_same_kind(folder: Path) -> None:
    layouts = {
        TorchRunner(
            load_model(folder, device=CpuDevice(kind)).network, pages=2, page_tokens=16
        ).memory.layout
        for kind in ("float32", *KINDS)
    }
    assert len(layouts) == 1 + len(KINDS)


def test_merging_into_rounded_weights_is_refused(folder: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot be merged into int8 weights"):
        SecondWeights(load_model(folder, device=CpuDevice("int8")).network)


def test_without_kernels_in_c_they_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "library", lambda: None)
    with pytest.raises(FailedPrecondition, match="need the kernels in C"):
        QuantisedLinear(torch.randn(4, 4))


def test_more_inputs_than_sums_can_hold_are_refused() -> None:
    with pytest.raises(FailedPrecondition, match="131072 inputs at most"):
        QuantisedLinear(torch.randn(1, 131_073))
