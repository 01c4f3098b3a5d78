"""Base weights of eight bits against the same in numpy, alone, in batches and below adapters."""

import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from services.core.errors import FailedPrecondition
from services.core.types import Digest, RequestId
from services.gpu_worker.kernels.choice import open_device
from services.gpu_worker.kernels.cpu import native, quantised
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.cpu.linear import Bank, Deltas, Linear
from services.gpu_worker.kernels.cpu.quantised import Kind, QuantisedLinear
from services.gpu_worker.kernels.device import Segment
from services.gpu_worker.kernels.reference import Piece, Slice
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.merging import SecondWeights
from tests.engines import TestBench, greedy
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference

KINDS: list[Kind] = ["int8", "int8-dynamic"]
SHAPES = [(8, 16), (577, 100), (1536, 48), (300, 1), (3, 33)]
X86 = platform.machine() == "x86_64"
OTHERS = {"AVX2": ["-mavx2", "-mfma"], "SSE2": ["-msse2"]} if X86 else {"plain": []}


def rounded(values: Any) -> tuple[Any, Any]:
    """Whole numbers, and a scale for every row; both float64, made in float32 as the kernels do."""
    most = np.abs(values).max(1, keepdims=True)
    return np.rint(values * (np.float32(127) / most)).astype(np.float64), most / np.float64(127)


def expected(x: Tensor, weight: Tensor, bias: Tensor | None, kind: Kind) -> Any:
    numbers, scales = rounded(weight.numpy())
    there = x.double().numpy()
    if kind == "int8-dynamic":
        whole, by_row = rounded(x.numpy())
        there = whole * by_row
    product = there @ numbers.T * scales.T
    return product if bias is None else product + bias.double().numpy()


def close(ours: Tensor, theirs: Any, scale: float) -> None:
    """A number that lies in the middle of two may be rounded either way."""
    np.testing.assert_allclose(ours.double().numpy(), theirs, atol=scale, rtol=1e-5)


def made(kind: Kind, weight: Tensor, bias: Tensor | None = None, site: int = 0) -> Linear:
    return CpuDevice(kind).linear(weight, bias, site=site)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("wide", "tall"), SHAPES)
@pytest.mark.parametrize("rows", [1, 6, 7, 97, 200])
def test_a_product_is_that_of_the_rounded_weights(
    rows: int, wide: int, tall: int, kind: Kind
) -> None:
    torch.manual_seed(rows)
    x, weight = torch.randn(rows, wide + 5)[:, :wide], torch.randn(tall, wide)
    for bias in (None, torch.randn(tall)):
        y = made(kind, weight, bias)(x)
        close(y, expected(x, weight, bias, kind), 1e-4 if kind == "int8" else 2e-5)


@pytest.mark.parametrize("name", list(OTHERS))
def test_every_processor_adds_up_the_same(name: str, tmp_path: Path) -> None:
    """Numbers as large as can be would not fit into 16 bits if more than two were added up."""
    path = tmp_path / "other.so"
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    flags = [*OTHERS[name], "-O1", "-w", "-fopenmp", "-shared", "-fPIC", "-o", str(path)]
    subprocess.run([compiler, *flags, str(native.FOLDER / "linear.c"), "-lm"], check=True)
    torch.manual_seed(0)
    for wide, tall in SHAPES:
        signs = torch.randn(tall, wide).sign()
        x, alike = torch.randn(9, wide), torch.randn(1, wide).sign()
        x[:3] = alike
        for weight in (torch.randn(tall, wide), signs, alike.expand(tall, wide).contiguous()):
            here, there = made("int8-dynamic", weight), made("int8-dynamic", weight)
            there._library = ctypes.CDLL(str(path))
            torch.testing.assert_close(there(x), here(x), atol=1e-5, rtol=1e-6)
            close(there(x), expected(x, weight, None, "int8-dynamic"), 2e-5)


@pytest.mark.parametrize("kind", ["float32", *KINDS])
@pytest.mark.parametrize(("wide", "tall"), SHAPES)
def test_a_row_is_the_same_in_every_batch(wide: int, tall: int, kind: Kind) -> None:
    torch.manual_seed(0)
    x = torch.randn(200, wide) * torch.logspace(-3, 3, 200).unsqueeze(1)
    product = made(kind, torch.randn(tall, wide), torch.randn(tall))
    whole = product(x)
    for first, last in [(0, 1), (199, 200), (50, 57), (90, 187), (1, 200)]:
        assert torch.equal(product(x[first:last]), whole[first:last])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("rows", [20, 150])
def test_adapters_add_what_they_add_to_inputs_as_they_are(
    rows: int, count: int, kind: Kind
) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)  # with more, five adapters are too few to have each its thread
    x, weight = torch.randn(rows, 100), torch.randn(64, 100)
    segments, added = [], torch.zeros(rows, 64, dtype=torch.float64)
    for first in range(0, 3 * count, 3):
        down, up = torch.randn(8, 100), torch.randn(8, 64)
        segment = Segment(first, first + 2, Bank([[], [Piece(down, [Slice(0, 8, 0, 64, up)])]]))
        segments.append(segment)
        mine = slice(first, first + 2)
        added[mine] = x[mine].double() @ down.double().T @ up.double()
    product = made(kind, weight, site=1)
    found = product(x, Deltas(segments, rows)).double() - product(x).double()
    torch.testing.assert_close(found, added, atol=2e-4, rtol=1e-5)


def test_what_is_not_a_number_shows() -> None:
    x = torch.ones(3, 20)
    x[1, 7] = torch.nan
    y = made("int8-dynamic", torch.randn(5, 20))(x)
    assert torch.isnan(y[1]).all()
    assert not torch.isnan(y[[0, 2]]).any()


def test_rows_of_zeros_stay_zeros() -> None:
    weight = torch.randn(5, 20)
    weight[2] = 0
    for kind in KINDS:
        y = made(kind, weight)(torch.tensor([[0.0] * 20, [1.0] * 20]))
        assert y[0].abs().max() == 0
        assert y[1, 2] == 0
        assert torch.isfinite(y).all()


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
            numbers, scales = rounded(parameter.detach().numpy())
            parameter.data.copy_(torch.from_numpy(numbers * scales))
    model = load_model(save_reference(plain, tmp_path))
    theirs, wanted = answers(model, reference, together=True)
    assert found == wanted
    for request, logits in theirs.runner.logits.items():
        torch.testing.assert_close(ours.logits(request), torch.stack(logits), atol=1e-4, rtol=0)


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


def test_on_cuda_they_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(FailedPrecondition, match="a CUDA worker has no int8 weights"):
        open_device("auto", weights="int8")
