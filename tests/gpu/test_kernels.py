"""The Triton kernels against their torch references, interpreted where there is no GPU.

Pages lie in any order in memory that is poisoned with NaN, as is all scratch memory.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.kernels import reference
from services.gpu_worker.kernels.cuda.attention import attend
from services.gpu_worker.kernels.cuda.config import Config, config_for
from services.gpu_worker.kernels.cuda.deltas import Alone, Chunked
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.kernels.cuda.layouts import Layout, lay_out
from services.gpu_worker.kernels.device import Segment, Span
from services.gpu_worker.model.layout import FUSED, SITES, Factors
from services.gpu_worker.model.loading import load_model
from services.gpu_worker.model.packing import pack
from tests.engines import TestBench
from tests.parity import assert_a_mixed_batch_agrees
from tests.tiny_models import make_reference, save_reference

PLACE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
PAGE = 16
CONFIG = config_for(PLACE)
# Llama 3's heads, and of its proportions where a program's every load takes a millisecond.
LARGE = (32, 8, 128) if torch.cuda.is_available() else (8, 2, 128)


poisoned = pytest.mark.usefixtures("poison")


def shapes(hidden: int) -> dict[str, tuple[int, int]]:
    """Module to (in, out), with the proportions of SmolLM2 and of Llama 3."""
    kv, wide = (hidden // 3, hidden * 8 // 3) if hidden % 3 == 0 else (hidden // 4, hidden)
    attends = {"q": (hidden, hidden), "k": (hidden, kv), "v": (hidden, kv), "o": (hidden, hidden)}
    return attends | {"gate": (hidden, wide), "up": (hidden, wide), "down": (wide, hidden)}


class Batch:
    """Adapters of mixed ranks in a poisoned memory, and rows of all of them and of the base."""

    def __init__(
        self,
        hidden: int,
        ranks: Sequence[int],
        elements: int,
        rows: Sequence[int],
        dtype: Any,
        config: Config = CONFIG,
    ) -> None:
        torch.manual_seed(hidden)
        self.shapes = shapes(hidden)
        widths = {f"0.{name}": out for name, (_, out) in self.shapes.items()}
        self.device = CudaDevice(PLACE, dtype, config)
        packings = [
            pack(self._factors(rank, index), widths, layers=1, elements=elements)
            for index, rank in enumerate(ranks)
        ]
        counts = [len(packing.image) for packing in packings]
        order = torch.randperm(sum(counts) + 3).tolist()
        self.memory = torch.full((len(order), elements), float("nan"), dtype=dtype, device=PLACE)
        self.pieces = []
        for packing, (start, end) in zip(
            packings, pairwise(accumulate(counts, initial=0)), strict=True
        ):
            pages = order[start:end]
            self.device.fill(self.memory, self.device.stage(packing.image), pages)
            self.pieces.append(packing.bind(self.memory, pages))
        bounds = list(accumulate(rows, initial=2))  # rows 0 and 1 are the base model's
        self.spans = list(pairwise(bounds))
        self.rows = bounds[-1] + 1
        banks = [self.device.bank(pieces, self.memory) for pieces in self.pieces]
        segments = [Segment(*span, bank) for span, bank in zip(self.spans, banks, strict=True)]
        self.deltas = self.device.deltas(segments, self.rows)

    def _factors(self, rank: int, index: int) -> dict[str, Factors]:
        """Every other adapter leaves some modules alone."""
        names = list(self.shapes) if index % 2 == 0 else ["q", "v", "up"]
        return {
            f"0.{name}": Factors(
                (torch.randn(rank, self.shapes[name][0]) * self.shapes[name][0] ** -0.5).numpy(),
                (torch.randn(rank, self.shapes[name][1]) * rank**-0.5).numpy(),
            )
            for name in names
            if rank
        }

    def check(self, fused: str, dtype: torch.dtype) -> None:
        modules = FUSED[fused]
        wide, tall = self.shapes[modules[0]][0], sum(self.shapes[name][1] for name in modules)
        x = torch.randn(self.rows, wide, device=PLACE).to(dtype)
        before = torch.randn(self.rows, tall, device=PLACE).to(dtype)
        y = before.clone()
        self.deltas.shrink(x, SITES[fused])
        self.deltas.expand(y, SITES[fused])
        expected = before.float()
        for (first, last), sites in zip(self.spans, self.pieces, strict=True):
            for piece in sites[SITES[fused]]:
                exact = reference.Piece(
                    piece.down.float(),
                    [
                        reference.Slice(
                            part.rank_start, part.rank_end, part.column_start, part.column_end,
                            part.up.float(),
                        )
                        for part in piece.slices
                    ],
                )  # fmt: skip
                reference.add_delta(expected[first:last], x[first:last].float(), [exact])
        limit = TOLERANCE[dtype] * 4
        torch.testing.assert_close(y.float(), expected, atol=limit, rtol=limit)
        assert torch.equal(y[:2], before[:2])


@poisoned
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["fp32", "fp16", "bf16"])
def test_mixed_ranks_in_one_batch(dtype: torch.dtype) -> None:
    batch = Batch(576, [8, 0, 16, 24, 64, 1], 300_000, [1, 3, 1, 17, 5, 2], dtype)
    for fused in FUSED:
        batch.check(fused, dtype)


@poisoned
def test_modules_that_are_cut_to_fit_small_pages() -> None:
    batch = Batch(576, [8, 64], 20_000, [1, 3], torch.float32)
    for fused in FUSED:
        batch.check(fused, torch.float32)


@poisoned
def test_a_wide_model_and_a_prefill_of_many_chunks() -> None:
    batch = Batch(4096, [64, 8], 2**20, [70, 1], torch.float32)
    for fused in ("qkv", "down"):
        batch.check(fused, torch.float32)


@poisoned
def test_widths_that_no_load_is_aligned_to() -> None:
    batch = Batch(54, [5, 3], 3_000, [2, 40], torch.float32)
    for fused in FUSED:
        batch.check(fused, torch.float32)


@poisoned
def test_chunks_that_fill_up_a_fixed_number_do_nothing() -> None:
    batch = Batch(54, [5, 3], 3_000, [2, 4], torch.float32)
    deltas = batch.deltas
    assert isinstance(deltas, Chunked)
    nothing = torch.zeros(3, 3, dtype=torch.long, device=PLACE)
    deltas._chunks = torch.cat([deltas._chunks, nothing])
    batch.check("qkv", torch.float32)


def test_one_adapter_of_many_rows_is_added_by_products_of_torch() -> None:
    """Also where its modules are cut to fit small pages; the kernels' own answer is the same."""
    batch = Batch(54, [40], 3_000, [CONFIG.alone_rows], torch.float32)
    [(first, last)], [pieces] = batch.spans, batch.pieces
    bank = batch.device.bank(pieces, batch.memory)
    alone = batch.device.deltas([Segment(0, last - first, bank)], last - first)
    assert isinstance(alone, Alone)
    assert isinstance(batch.deltas, Chunked)  # rows of the base model are beside it
    assert max(map(len, pieces)) > 1
    for fused, site in SITES.items():
        x = torch.randn(batch.rows, batch.shapes[FUSED[fused][0]][0], device=PLACE)
        tall = sum(batch.shapes[name][1] for name in FUSED[fused])
        one, other = (torch.ones(batch.rows, tall, device=PLACE) for _ in range(2))
        alone.shrink(x[first:last], site)
        alone.expand(one[first:last], site)
        batch.deltas.shrink(x, site)
        batch.deltas.expand(other, site)
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_base_rows_cost_nothing() -> None:
    deltas = CudaDevice(PLACE, torch.float32).deltas([], 10)
    y = torch.ones(10, 4)
    deltas.shrink(torch.ones(10, 4), 0)
    deltas.expand(y, 0)
    assert torch.equal(y, torch.ones(10, 4))


def laid_out(spans: Sequence[Span], window: int | None, config: Config = CONFIG) -> Layout:
    return lay_out(spans, page_tokens=PAGE, window=window, place=PLACE, config=config)


class Context:
    """Sequences whose keys and values lie in shuffled pages of a poisoned memory."""

    def __init__(
        self, spans: Sequence[tuple[int, int]], heads: int, kv_heads: int, head: int, dtype: Any
    ) -> None:
        """`spans`: rows and first position of each sequence."""
        torch.manual_seed(heads)
        ends = [position + count for count, position in spans]
        pages = [-(-end // PAGE) for end in ends]
        order = iter(torch.randperm(sum(pages) + 5).tolist())
        shape = (sum(pages) + 5, 2, 2, kv_heads, PAGE, head)
        arena = torch.full(shape, float("nan"), dtype=dtype, device=PLACE)
        self.spans, row = [], 0
        for (count, position), end, needed in zip(spans, ends, pages, strict=True):
            table = [next(order) for _ in range(needed)]
            for at in range(end):
                values = torch.randn(2, kv_heads, head, device=PLACE) * 2
                arena[table[at // PAGE], 1, :, :, at % PAGE] = values.to(dtype)
            self.spans.append(Span(row, count, position, table))
            row += count
        self.keys, self.values = arena[:, 1, 0], arena[:, 1, 1]
        self.q = torch.randn(row, heads, head, device=PLACE).to(dtype)

    def check(self, window: int | None, config: Config = CONFIG) -> None:
        layout = laid_out(self.spans, window, config)
        seen = attend(self.q, self.keys, self.values, layout)
        limit = TOLERANCE[self.q.dtype]
        for span in self.spans:
            rows = slice(span.first, span.last + 1)
            expected = reference.prefill_attention(
                self.q[rows].float().cpu(),
                self.keys.float().nan_to_num().cpu(),
                self.values.float().nan_to_num().cpu(),
                table=torch.tensor(span.table(PAGE)),
                position=span.position,
                window=window,
            )
            torch.testing.assert_close(seen[rows].float().cpu(), expected, atol=limit, rtol=limit)


@poisoned
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(("heads", "kv_heads", "head"), [(9, 3, 64), LARGE, (4, 4, 20)])
@pytest.mark.parametrize("window", [None, 7], ids=["full", "window"])
def test_attention(
    window: int | None, heads: int, kv_heads: int, head: int, dtype: torch.dtype
) -> None:
    spans = [(1, 0), (1, 63), (5, 0), (1, 300), (70, 10), (17, 64), (1, 16)]
    Context(spans, heads, kv_heads, head, dtype).check(window)


@poisoned
def test_a_sequence_answers_alike_alone_and_in_company() -> None:
    together = Context([(1, 30), (1, 700)], 4, 2, 32, torch.float32)
    layouts = [laid_out(spans, None) for spans in (together.spans[:1], together.spans)]
    alone, both = (attend(together.q, together.keys, together.values, layout) for layout in layouts)
    assert torch.equal(alone[0], both[0])


@pytest.mark.parametrize(("family", "graph_bytes"), [("mistral", 1), ("qwen3", 0)])
def test_a_whole_model_on_these_kernels(family: str, graph_bytes: int, tmp_path: Path) -> None:
    reference: Any = make_reference(family)
    folder = save_reference(reference, tmp_path)
    model = load_model(folder, device=CudaDevice(PLACE, torch.float32))
    bench = TestBench(model, Limits(max_step_tokens=12), pages=400, graph_bytes=graph_bytes)
    prompts = [list(range(2, 2 + length)) for length in (1, 14)]
    names = ["qv-4"] if graph_bytes else ["rs-16"]  # interpreted, a step takes seconds
    assert_a_mixed_batch_agrees(bench, reference, prompts, 3, names)
