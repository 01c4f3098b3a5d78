"""The C kernels against their torch references, on pages poisoned with NaN."""

import pytest
import torch
from torch import Tensor

from services.gpu_worker.kernels import reference
from services.gpu_worker.kernels.cpu.attention import attend, lay_out
from services.gpu_worker.kernels.cpu.linear import Bank, Deltas, Linear
from services.gpu_worker.kernels.cpu.native import library
from services.gpu_worker.kernels.device import Segment, Span
from services.gpu_worker.model.layout import FUSED, SITES, Factors
from services.gpu_worker.model.packing import Packing, pack

SHAPES = {"q": (576, 576), "k": (576, 192), "v": (576, 192), "o": (576, 576)}
SHAPES |= {"gate": (576, 1536), "up": (576, 1536), "down": (1536, 576)}
WIDTHS = {f"0.{name}": width for name, (_, width) in SHAPES.items()}


def test_there_is_a_compiler_here() -> None:
    assert library() is not None


@pytest.mark.parametrize(("heads", "kv_heads", "head"), [(9, 3, 64), (32, 8, 128), (4, 4, 20)])
@pytest.mark.parametrize("window", [None, 7])
def test_attention_over_pages(heads: int, kv_heads: int, head: int, window: int | None) -> None:
    torch.manual_seed(0)
    ends = torch.tensor([1, 15, 16, 17, 100], dtype=torch.int32)
    starts = (ends - (window or 1000)).clamp_min(0)
    arena = torch.full((64, 2, 2, kv_heads, 16, head), float("nan"))
    tables = torch.randperm(64)[: 5 * 7].view(5, 7).int()
    for row, end in enumerate(ends.tolist()):
        for position in range(end):
            page, offset = int(tables[row, position // 16]), position % 16
            arena[page, 1, :, :, offset] = torch.randn(2, kv_heads, head) * 3
    q = torch.randn(5, heads, head)
    keys, values = arena[:, 1, 0], arena[:, 1, 1]
    spans = [Span(row, 1, end - 1, tables[row].tolist()) for row, end in enumerate(ends.tolist())]
    layout = lay_out(spans[::-1], page_tokens=16, group=heads // kv_heads, window=window)
    ours = torch.empty_like(q)
    attend(q, keys, values, layout, ours)
    expected = reference.decode_attention(
        q, keys.nan_to_num(), values.nan_to_num(), tables=tables, starts=starts, ends=ends
    )
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-5)


def adapter(rank: int, modules: list[str], *, seed: int, elements: int) -> Packing:
    torch.manual_seed(seed)
    sites = {
        f"0.{name}": Factors(
            torch.randn(rank, SHAPES[name][0]).numpy(), torch.randn(rank, SHAPES[name][1]).numpy()
        )
        for name in modules
    }
    return pack(sites, WIDTHS, layers=1, elements=elements)


def bank(packing: Packing, *, seed: int) -> Bank:
    """In shuffled pages of an arena whose other pages are poison."""
    torch.manual_seed(seed)
    count, elements = packing.image.shape
    memory = torch.full((count + 3, elements), float("nan"))
    pages = torch.randperm(count + 3)[:count].tolist()
    memory[pages] = packing.image
    return Bank(packing.bind(memory, pages))


@pytest.mark.parametrize("elements", [200_000, 30_000, 2_112], ids=["one", "several", "cut"])
@pytest.mark.parametrize(
    "spans",  # some rows are the base model's
    [[(2, 3), (3, 7), (7, 8), (9, 60)], [(5, 99), (99, 100), (110, 290), (290, 299)]],
    ids=["few rows", "many rows"],
)
def test_many_adapters_at_once(elements: int, spans: list[tuple[int, int]]) -> None:
    torch.set_num_threads(2)  # with more, four adapters are too few to have each its thread
    ranks_and_modules = [(8, list(SHAPES)), (64, ["q", "v"]), (24, ["k", "down"]), (1, ["up"])]
    packings = [
        adapter(rank, modules, seed=seed, elements=elements)
        for seed, (rank, modules) in enumerate(ranks_and_modules)
    ]
    banks = [bank(packing, seed=seed) for seed, packing in enumerate(packings)]
    count = spans[-1][1] + 4
    placed = list(zip(spans, banks, strict=True))
    segments = [Segment(*span, ours) for span, ours in placed]
    deltas = Deltas(segments, count)
    for fused, modules in FUSED.items():
        wide, tall = SHAPES[modules[0]][0], sum(SHAPES[name][1] for name in modules)
        x, weight, bias = torch.randn(count, wide), torch.randn(tall, wide), torch.randn(tall)
        expected = x @ weight.T + bias
        for span, ours in placed:
            rows = slice(*span)
            reference.add_delta(expected[rows], x[rows], ours.sites[SITES[fused]])
        y = Linear(weight, bias, site=SITES[fused])(x, deltas)
        torch.testing.assert_close(y, expected, atol=3e-3, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 32, 95, 96, 97, 300])
@pytest.mark.parametrize(("wide", "tall"), [(8, 16), (576, 100), (1536, 48), (300, 1)])
def test_a_product_with_any_number_of_rows(rows: int, wide: int, tall: int) -> None:
    torch.manual_seed(rows)
    x, weight = torch.randn(rows, wide + 5)[:, :wide], torch.randn(tall, wide)
    exact = x.double() @ weight.double().T
    for bias in (None, torch.randn(tall)):
        y = Linear(weight, bias)(x)
        expected = exact if bias is None else exact + bias
        torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)


def test_packing_wastes_little_and_loses_nothing() -> None:
    packing = adapter(8, list(SHAPES), seed=0, elements=40_000)
    true = sum(8 * (wide + tall) for wide, tall in SHAPES.values())
    assert packing.image.numel() <= true + 40_000
    dense: dict[str, Tensor] = {}
    for fused, modules in FUSED.items():
        wide = SHAPES[modules[0]][0]
        y = torch.zeros(wide, sum(SHAPES[name][1] for name in modules))
        pieces = packing.bind(packing.image, range(len(packing.image)))[SITES[fused]]
        reference.add_delta(y, torch.eye(wide), pieces)
        at = 0
        for name in modules:
            dense[name] = y[:, at : at + SHAPES[name][1]]
            at += SHAPES[name][1]
    torch.manual_seed(0)
    for name, (wide, tall) in SHAPES.items():
        a, b = torch.randn(8, wide), torch.randn(8, tall)
        torch.testing.assert_close(dense[name], a.T @ b, atol=1e-4, rtol=1e-4)
