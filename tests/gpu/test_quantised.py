"""Base weights of eight bits on CUDA's kernels: the products of what they are rounded to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import linear

from services.core.errors import FailedPrecondition
from services.core.types import Digest
from services.gpu_worker.kernels.choice import open_device
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.kernels.device import Device
from services.gpu_worker.kernels.rounding import quantise
from services.gpu_worker.model.loading import load_model
from tests.engines import TestBench, greedy
from tests.gpu.test_kernels import PLACE, TOLERANCE, Batch, poisoned
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference

INT8 = CudaDevice(PLACE, torch.float32, weights="int8")


@poisoned
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 140), (513, 33)])
@pytest.mark.parametrize("rows", [1, 3, 40, 70, 150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_product_is_that_of_the_rounded_weights(
    dtype: torch.dtype, rows: int, inputs: int, outputs: int
) -> None:
    torch.manual_seed(rows)
    weight = torch.randn(outputs, inputs) * torch.logspace(-2, 2, outputs).unsqueeze(1)
    weight, x = weight.to(PLACE, dtype), torch.randn(rows, inputs + 3, device=PLACE).to(dtype)
    numbers, scales = quantise(weight)
    whole, x = numbers.double() * scales.double().unsqueeze(1), x[:, :inputs]
    for bias in (None, torch.randn(outputs, device=PLACE).to(dtype)):
        found = CudaDevice(PLACE, dtype, weights="int8").linear(weight, bias)(x)
        expected = linear(x.double(), whole, None if bias is None else bias.double())
        size = whole.abs().amax(1) * inputs**0.5  # of an output's numbers
        wrong = (found.double() - expected).abs() / (size + expected.abs())
        assert found.dtype == dtype
        assert wrong.max() < TOLERANCE[dtype] / 2


def test_what_adapters_add_is_not_rounded() -> None:
    plain, rounded = (Batch(48, [5, 8], 3_000, [2, 20], torch.float32) for _ in range(2))
    weight, x = (
        torch.randn(48 * 2 - 16, 48, device=PLACE),
        torch.randn(plain.rows, 48, device=PLACE),
    )
    numbers, scales = quantise(weight)
    there = plain.device.linear(numbers * scales.unsqueeze(1), site=0)(x, plain.deltas)
    found = INT8.linear(weight, site=0)(x, rounded.deltas)
    torch.testing.assert_close(found, there, atol=1e-4, rtol=1e-5)


def answers(folder: Path, device: Device, graph_bytes: int) -> list[tuple[Any, torch.Tensor]]:
    """Of the base and an adapter, with their logits."""
    model = load_model(folder, device=device)
    bench = TestBench(model, pages=200, graph_bytes=graph_bytes)
    adapted: Any = adapt(make_reference("qwen2"), adapter_configs()["qv-4"], seed=1)
    digest = bench.load(canonical_of(adapted, model.card.fingerprint))
    requests = [
        greedy(f"{adapter is None}", range(2, 9), adapter, 4) for adapter in (None, Digest(digest))
    ]
    found = bench.generate(requests)
    return [(found[request.id], bench.logits(request.id)) for request in requests]


@pytest.mark.parametrize("graph_bytes", [0, 1])
def test_a_whole_model_answers_as_on_a_cpu(graph_bytes: int, tmp_path: Path) -> None:
    """Where kernels of another make multiply the same numbers."""
    folder = save_reference(make_reference("qwen2"), tmp_path)  # with biases
    ours, theirs = answers(folder, INT8, graph_bytes), answers(folder, CpuDevice("int8"), 0)
    for (tokens, logits), (expected, others) in zip(ours, theirs, strict=True):
        assert tokens == expected
        torch.testing.assert_close(logits.cpu(), others, atol=1e-4, rtol=0)


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert INT8.numbers == "torch.float32, int8"
    with pytest.raises(FailedPrecondition, match="cannot be merged into int8"):
        INT8.twin(INT8.linear(torch.ones(4, 4, device=PLACE)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(FailedPrecondition, match="rounds no inputs"):
        open_device("cuda", "auto", "int8-dynamic")
