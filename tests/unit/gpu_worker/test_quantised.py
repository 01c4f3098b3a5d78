"""Base weights of eight bits against the same in numpy, alone, in batches and below adapters."""

import ctypes
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from services.gpu_worker.kernels.cpu import native
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.cpu.linear import Bank, Deltas, Linear
from services.gpu_worker.kernels.device import Segment
from services.gpu_worker.kernels.reference import Piece, Slice
from services.gpu_worker.kernels.rounding import Kind

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
