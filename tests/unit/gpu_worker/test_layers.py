"""All layers in C against one operation of the reference after another, in poisoned pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import pytest
import torch
from torch import Tensor

from services.gpu_worker.kernels import layers, reference
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.cpu.linear import Bank
from services.gpu_worker.kernels.device import (
    Deltas,
    Device,
    Layer,
    Layout,
    Linear,
    PagedKv,
    Segment,
    Span,
)
from services.gpu_worker.kernels.reference import HeadNorms, Piece, Places, Slice

PAGE_TOKENS = 16
PAGES = 64


@dataclass(frozen=True)
class Shape:
    hidden: int
    heads: int
    kv_heads: int
    head: int
    intermediate: int
    head_norms: bool = False
    bias: bool = False
    window: int | None = None

    @property
    def products(self) -> list[tuple[int, int]]:
        """[out, in] of qkv, o, gate_up, down."""
        q, kv = self.heads * self.head, 2 * self.kv_heads * self.head
        return [
            (q + kv, self.hidden),
            (self.hidden, q),
            (2 * self.intermediate, self.hidden),
            (self.hidden, self.intermediate),
        ]


SHAPES = {
    "smollm's heads": Shape(576, 9, 3, 64, 200),
    "qwen's norms": Shape(48, 4, 2, 20, 100, head_norms=True),
    "biases, odd sizes": Shape(30, 2, 1, 6, 33, bias=True),
    "a window": Shape(64, 4, 4, 16, 48, window=7),
    "heads too wide for C": Shape(32, 1, 1, 320, 64),
}
# (tokens of the sequence before this step, tokens in it)
STEPS = {
    "one": [(40, 1)],
    "singles": [(at, 1) for at in (0, 15, 16, 17, 70)],
    "many singles": [(at % 9, 1) for at in range(60)],
    "stretches": [(0, 40), (5, 1), (30, 20), (0, 1)],
    "a long one": [(0, 130)],
}


class PlainLinear:
    def __init__(self, weight: Tensor, bias: Tensor | None, site: int) -> None:
        self.weight, self.bias, self.site = weight, bias, site

    def __call__(self, x: Tensor, deltas: object = None) -> Tensor:
        y = torch.nn.functional.linear(x, self.weight, self.bias)
        for rows, sites in cast("list[tuple[slice, Sequence[Sequence[Piece]]]]", deltas):
            reference.add_delta(y[rows], x[rows], sites[self.site])
        return y


class PlainDevice:
    """The reference's operations; its layout is the spans."""

    add_norm = staticmethod(reference.add_norm)
    gate = staticmethod(reference.gate)
    enter_heads = staticmethod(reference.enter_heads)

    def __init__(self, window: int | None) -> None:
        self.window = window

    def attention(self, q: Tensor, keys: Tensor, values: Tensor, layout: list[Span]) -> Tensor:
        keys, values = keys.nan_to_num(), values.nan_to_num()
        parts = [
            reference.prefill_attention(
                q[span.first : span.first + span.count],
                keys,
                values,
                table=torch.tensor(span.table(PAGE_TOKENS)),
                position=span.position,
                window=self.window,
            )
            for span in layout
        ]
        return torch.cat(parts)


def adapter(shape: Shape, rank: int, count: int) -> list[list[Piece]]:
    """On every second layer, and there on all but `o`."""
    sites: list[list[Piece]] = []
    for layer in range(count):
        for name, (out, wide) in zip(("qkv", "o", "gate_up", "down"), shape.products, strict=True):
            up = Slice(0, rank, 0, out, torch.randn(rank, out) / out**0.5)
            there = layer % 2 == 0 and name != "o"
            sites.append([Piece(torch.randn(rank, wide) / wide**0.5, [up])] if there else [])
    return sites


def spans_of(step: list[tuple[int, int]]) -> list[Span]:
    free = iter(torch.randperm(PAGES).tolist())
    firsts = [sum(count for _, count in step[:index]) for index in range(len(step) + 1)]
    return [
        Span(
            first,
            end - first,
            before,
            [next(free) for _ in range((before + end - first) // 16 + 1)],
        )
        for (first, end), (before, _) in zip(pairwise(firsts), step, strict=True)
    ]


@pytest.mark.parametrize("step", list(STEPS))
@pytest.mark.parametrize("kind", list(SHAPES))
def test_layers_in_c_are_those_of_the_reference(kind: str, step: str) -> None:
    torch.manual_seed(0)
    shape, count, eps = SHAPES[kind], 3, 1e-5
    spans = spans_of(STEPS[step])
    rows = sum(span.count for span in spans)
    ours, plain = CpuDevice(), PlainDevice(shape.window)

    def drawn(site: int, out: int, wide: int) -> tuple[Tensor, Tensor | None, int]:
        # Wide enough that gates see values whose exponentials are tiny.
        weight = torch.randn(out, wide) * (9 if site % 4 == 2 else 1) / wide**0.5
        return weight, torch.randn(out) if shape.bias else None, site

    def layer(index: int) -> tuple[Layer, Layer]:
        parts = [drawn(4 * index + i, *size) for i, size in enumerate(shape.products)]
        attention_norm, mlp_norm = torch.rand(shape.hidden), torch.rand(shape.hidden)
        norms = None
        if shape.head_norms:
            norms = HeadNorms(torch.rand(shape.head), torch.rand(shape.head), 1e-6)

        def of(products: Sequence[Linear]) -> Layer:
            qkv, o, gate_up, down = products
            return Layer(qkv, o, gate_up, down, attention_norm, mlp_norm, norms)

        in_c = [ours.linear(weight, bias, site=site) for weight, bias, site in parts]
        return of(in_c), of([PlainLinear(*part) for part in parts])

    pairs = [layer(index) for index in range(count)]
    # What came before this step is in the pages; what nobody wrote is poison.
    arena = torch.full((PAGES, count, 2, shape.kv_heads, PAGE_TOKENS, shape.head), float("nan"))
    for span in spans:
        for at in range(span.position):
            where = arena[span.pages[at // PAGE_TOKENS], :, :, :, at % PAGE_TOKENS]
            where.copy_(torch.randn_like(where))
    arenas = [arena, arena.clone()]
    caches = [[PagedKv(a[:, i, 0], a[:, i, 1]) for i in range(count)] for a in arenas]
    angles = torch.rand(rows, shape.head)
    entries = [(s.pages[p // PAGE_TOKENS], p % PAGE_TOKENS) for s in spans for p in s.positions]
    places = Places(
        angles.cos(),
        angles.sin(),
        torch.tensor([page for page, _ in entries]),
        torch.tensor([offset for _, offset in entries]),
    )
    group = shape.heads // shape.kv_heads
    layout = ours.layout(spans, page_tokens=PAGE_TOKENS, group=group, window=shape.window)
    adapters = [adapter(shape, rank, count) for rank in (8, 1, 24, 5)]
    placed = [(span, adapters[i % 4]) for i, span in enumerate(spans) if i % 5 < 4]
    deltas = ours.deltas([Segment(s.first, s.last + 1, Bank(sites)) for s, sites in placed], rows)
    there = [(slice(s.first, s.last + 1), sites) for s, sites in placed]
    x = torch.randn(rows, shape.hidden)
    expected = x.clone()

    ours.layers([in_c for in_c, _ in pairs], eps)(x, caches[0], places, layout, deltas)
    layers.Layers(cast(Device, plain), [in_torch for _, in_torch in pairs], eps)(
        expected, caches[1], places, cast(Layout, spans), cast(Deltas, there)
    )

    torch.testing.assert_close(x, expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(*arenas, atol=2e-4, rtol=1e-4, equal_nan=True)
    assert not torch.isnan(x).any()
