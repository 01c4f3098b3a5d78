"""Kernels alone: CUDA's events, caches flushed between the calls."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.gpu_model import PAGE, RANKS, Row, Size, random_packing
from services.gpu_worker.kernels.cuda.attention import attend
from services.gpu_worker.kernels.cuda.deltas import Deltas
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.kernels.device import Segment, Span
from services.gpu_worker.model.arena import page_elements


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


def _random(device: CudaDevice, *shape: int) -> Tensor:
    return torch.randn(*shape, device=device.place).to(device.dtype)


def lora(device: CudaDevice, size: Size, speed: float) -> list[Row]:
    """The delta of gate_up, the widest linear, against the product it is added to."""
    rows = []
    config = size.config
    weight = torch.randn(2 * config.intermediate, config.hidden, device=device.place).to(
        device.dtype
    )
    base = device.linear(weight, site=2)
    for ranks in RANKS:
        for distinct in size.adapters:
            packing = [
                random_packing(config, ranks[i % len(ranks)], page_elements(config, PAGE), layers=1)
                for i in range(distinct)
            ]
            for tokens in size.tokens:
                if tokens < distinct:
                    continue
                memory, banks, read = _resident(device, packing, site=2)
                each = tokens // distinct
                segments = [Segment(i * each, (i + 1) * each, bank) for i, bank in enumerate(banks)]
                deltas = device.deltas(segments, tokens)
                x = _random(device, tokens, config.hidden)
                y = torch.zeros(tokens, 2 * config.intermediate, device=device.place).to(
                    device.dtype
                )
                taken = timed(partial(_add, deltas, y, x))
                plain = timed(lambda x=x: base(x))  # type: ignore[misc]
                name = f"lora gate_up, {tokens} tokens, {distinct} adapters of {list(ranks)}"
                rows.append(Row(name, taken * 1e6, "us", read / taken / speed))
                rows.append(Row(f"{name}, over the base product", taken / plain, "x"))
                del memory
    return rows


def _add(deltas: Deltas, y: Tensor, x: Tensor, site: int = 2) -> None:
    deltas.shrink(x, site)
    deltas.expand(y, site)


def _resident(device: CudaDevice, packings: Sequence[Any], *, site: int) -> Any:
    """Adapters in the device's memory: it, their banks, and the bytes that one site reads."""
    pages = sum(len(packing.image) for packing in packings)
    elements = packings[0].image.shape[1]
    memory = torch.zeros(pages, elements, dtype=device.dtype, device=device.place)
    banks, at, read = [], 0, 0
    for packing in packings:
        where = list(range(at, at + len(packing.image)))
        at += len(packing.image)
        device.fill(memory, device.stage(packing.image), where)
        pieces = packing.bind(memory, where)
        banks.append(device.bank(pieces, memory))
        read += sum(
            piece.down.nbytes + sum(part.up.nbytes for part in piece.slices)
            for piece in pieces[site]
        )
    return memory, banks, read


def attention(device: CudaDevice, size: Size, speed: float) -> list[Row]:
    config, rows = size.config, []
    shape = (2, config.kv_heads, PAGE, config.head_dim)
    per_sequence = size.context // PAGE + 1
    for count in size.tokens[:3]:
        cache = _random(device, count * per_sequence, *shape)
        tables = torch.randperm(count * per_sequence).view(count, -1).tolist()
        spans = [Span(i, 1, size.context - 1, tables[i]) for i in range(count)]
        layout = device.layout(spans, page_tokens=PAGE, group=1, window=None)
        q = _random(device, count, config.heads, config.head_dim)
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
