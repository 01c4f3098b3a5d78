"""How far weights of eight bits, and what is multiplied with them, are from what they were."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from services.gpu_worker.kernels.cpu.quantised import QuantisedLinear
from services.gpu_worker.kernels.rounding import quantise

SEEDS = st.integers(0, 10_000)
SLACK = 1 + 1e-5  # of float32


def drawn(seed: int, rows: int, columns: int) -> Tensor:
    """Each row of another magnitude, with some that stand out."""
    torch.manual_seed(seed)
    spread = 10.0 ** torch.randint(-4, 3, (rows, 1))
    return torch.randn(rows, columns) * spread * (1 + 20 * (torch.rand(rows, columns) < 0.02))


@settings(max_examples=50)
@given(SEEDS, st.integers(1, 40), st.integers(1, 90))
def test_a_weight_is_at_most_half_a_scale_away(seed: int, rows: int, columns: int) -> None:
    weight = drawn(seed, rows, columns)
    numbers, scales = quantise(weight)
    assert numbers.abs().max() <= 127
    assert (numbers.abs().amax(1) == 127).all()
    away = (weight.double() - numbers * scales.double().unsqueeze(1)).abs()
    assert (away <= scales.double().unsqueeze(1) / 2 * SLACK).all()


@settings(max_examples=50)
@given(SEEDS, st.integers(1, 20), st.integers(1, 40), st.integers(1, 90), st.booleans())
def test_a_product_is_as_far_away_as_its_numbers_can_make_it(
    seed: int, rows: int, outputs: int, inputs: int, dynamic: bool
) -> None:
    x, weight = drawn(seed, rows, inputs), drawn(seed + 1, outputs, inputs)
    exact = x.double() @ weight.double().T
    y = QuantisedLinear(weight, dynamic=dynamic)(x)
    half_w = weight.double().abs().amax(1) / 254
    half_x = x.double().abs().amax(1) / 254 * dynamic
    bound = (
        x.double().abs().sum(1, keepdim=True) * half_w
        + half_x.unsqueeze(1) * weight.double().abs().sum(1)
        + inputs * half_x.unsqueeze(1) * half_w
    )
    assert ((y - exact).abs() <= bound * SLACK + 1e-6 * exact.abs()).all()
