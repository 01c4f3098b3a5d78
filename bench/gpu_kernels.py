"""Kernels alone: CUDA's events, caches flushed between the calls."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from bench.gpu_model import PAGE, RANKS, Row, Size, random_packing
from services.gpu_worker.kernels import reference
from services.gpu_worker.kernels.cuda.attention import attend
from services.gpu_worker.kernels.cuda.deltas import Alone, Deltas
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.kernels.device import Bank, Linear, Segment, Span
from services.gpu_worker.kernels.reference import Piece
from services.gpu_worker.model.arena import page_elements

GATE_UP = 2  # its site in a layer


def timed(work: Callable[[], object], repeats: int = 30) -> float:
    """Median seconds."""
    if not torch.cuda.is_available():
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun
    flush = torch.empty(1 << 28, dtype=torch.int8, device="cuda")
    for _ in range(3):
        work()
    taken = []
    for _ in range(repeats):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        work()
        end.record()
        end.synchronize()
        taken.append(float(begin.elapsed_time(end)) / 1000)
    return statistics.median(taken)


def bandwidth(device: CudaDevice, size: Size) -> float:
    source = torch.zeros(size.copies, dtype=torch.int8, device=device.place)
    target = torch.empty_like(source)
    return 2 * source.nbytes / timed(partial(target.copy_, source))


def random(device: CudaDevice, *shape: int) -> Tensor:
    return torch.randn(*shape, device=device.place).to(device.dtype)


@dataclass(frozen=True, slots=True)
class Resident:
    """Adapters of one layer in the device's memory."""

    memory: Tensor
    banks: Sequence[Bank]
    pieces: Sequence[Sequence[Piece]]  # of the site, of each adapter

    @property
    def inputs(self) -> int:
        return self.pieces[0][0].down.shape[1]

    @property
    def outputs(self) -> int:
        return max(part.column_end for piece in self.pieces[0] for part in piece.slices)

    @property
    def down_bytes(self) -> int:
        return sum(piece.down.nbytes for site in self.pieces for piece in site)

    @property
    def up_bytes(self) -> int:
        return sum(p.up.nbytes for site in self.pieces for piece in site for p in piece.slices)


def resident(
    device: CudaDevice, size: Size, ranks: Sequence[int], distinct: int, *, site: int
) -> Resident:
    elements = page_elements(size.config, PAGE)
    packings = [
        random_packing(size.config, ranks[i % len(ranks)], elements, layers=1)
        for i in range(distinct)
    ]
    pages = sum(len(packing.image) for packing in packings)
    memory = torch.zeros(pages, elements, dtype=device.dtype, device=device.place)
    banks, sites, at = [], [], 0
    for packing in packings:
        where = list(range(at, at + len(packing.image)))
        at += len(packing.image)
        device.fill(memory, device.stage(packing.image), where)
        pieces = packing.bind(memory, where)
        banks.append(device.bank(pieces, memory))
        sites.append(pieces[site])
    return Resident(memory, banks, sites)


def segments_of(banks: Sequence[Bank], tokens: int) -> list[Segment]:
    each = tokens // len(banks)
    return [Segment(i * each, (i + 1) * each, bank) for i, bank in enumerate(banks)]


def lora(device: CudaDevice, size: Size, speed: float) -> list[Row]:
    """What adapters add to gate_up, the widest linear, against the product it is added to, and
    against products of torch, adapter by adapter."""
    rows = []
    weight = random(device, 2 * size.config.intermediate, size.config.hidden)
    base = device.linear(weight, site=GATE_UP)
    for ranks in RANKS:
        for distinct in size.adapters:
            held = resident(device, size, ranks, distinct, site=GATE_UP)
            for tokens in size.tokens:
                if tokens >= distinct:
                    name = f"lora gate_up, {tokens} tokens, {distinct} adapters of {list(ranks)}"
                    rows += _of_one(device, base, held, tokens=tokens, name=name, speed=speed)
            del held
    return rows


def _of_one(
    device: CudaDevice, base: Linear, held: Resident, *, tokens: int, name: str, speed: float
) -> list[Row]:
    segments = segments_of(held.banks, tokens)
    chunked = replace(device.config, alone_rows=tokens + 1)
    deltas = CudaDevice(device.place, device.dtype, chunked).deltas(segments, tokens)
    x = random(device, tokens, held.inputs)
    y = base(x)
    shrink = timed(partial(deltas.shrink, x, GATE_UP))
    expand = timed(partial(deltas.expand, y, GATE_UP))
    both = timed(partial(add, deltas, y, x, GATE_UP))
    loop = timed(partial(_by_torch, segments, held.pieces, y, x))
    read = held.down_bytes + held.up_bytes
    found = [
        Row(name, both * 1e6, "us", read / both / speed),
        Row(f"{name}, shrink", shrink * 1e6, "us", (held.down_bytes + x.nbytes) / shrink / speed),
        Row(f"{name}, expand", expand * 1e6, "us", (held.up_bytes + 2 * y.nbytes) / expand / speed),
        Row(f"{name}, over the base product", both / timed(partial(base, x)), "x"),
        Row(f"{name}, torch adapter by adapter over it", loop / both, "x"),
    ]
    if len(segments) == 1:  # from what number of tokens on: the configuration's alone_rows
        alone = timed(partial(add, Alone([[]] * GATE_UP + list(held.pieces)), y, x, GATE_UP))
        found.append(Row(f"{name}, products of torch over it", alone / both, "x"))
    return found


def add(deltas: Deltas, y: Tensor, x: Tensor, site: int) -> None:
    deltas.shrink(x, site)
    deltas.expand(y, site)


def _by_torch(
    segments: Sequence[Segment], pieces: Sequence[Sequence[Piece]], y: Tensor, x: Tensor
) -> None:
    """A grouped product, group by group."""
    for segment, own in zip(segments, pieces, strict=True):
        rows = slice(segment.first, segment.last)
        reference.add_delta(y[rows], x[rows], own)


def attention(device: CudaDevice, size: Size, speed: float) -> list[Row]:
    config, rows = size.config, []
    shape = (2, config.kv_heads, PAGE, config.head_dim)
    per_sequence = size.context // PAGE + 1
    for count in size.tokens[:3]:
        cache = random(device, count * per_sequence, *shape)
        tables = torch.randperm(count * per_sequence).view(count, -1).tolist()
        spans = [Span(i, 1, size.context - 1, tables[i]) for i in range(count)]
        layout = device.layout(spans, page_tokens=PAGE, group=1, window=None)
        q = random(device, count, config.heads, config.head_dim)
        taken = timed(partial(attend, q, cache[:, 0], cache[:, 1], layout))
        name = f"decode attention, {count} sequences of {size.context}"
        rows.append(Row(name, taken * 1e6, "us", cache.nbytes / taken / speed))
    span = Span(0, size.context, 0, tables[0])
    layout = device.layout([span], page_tokens=PAGE, group=1, window=None)
    q = torch.randn(size.context, config.heads, config.head_dim, device=device.place).to(
        device.dtype
    )
    taken = timed(lambda: attend(q, cache[:, 0], cache[:, 1], layout))
    flops = 2.0 * size.context**2 * config.heads * config.head_dim
    rows.append(Row(f"prefill attention, {size.context} tokens", flops / taken / 1e12, "TFLOP/s"))
    return rows
