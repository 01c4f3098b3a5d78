"""Kernels under their roofs (Williams, Waterman and Patterson, 2009): what each computes for every
byte that it has to move, against the speeds of the device's memory and of its products, both as
measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from bench.gpu_kernels import GATE_UP, add, bandwidth, random, resident, segments_of, timed
from bench.gpu_model import PAGE, Size
from services.gpu_worker.kernels.cuda.attention import attend
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.kernels.device import Span

RANK = 16


@dataclass(frozen=True, slots=True)
class Point:
    kind: str
    of: str
    flops: float
    bytes: float  # that it cannot do without
    seconds: float

    @property
    def intensity(self) -> float:
        return self.flops / self.bytes


@dataclass(frozen=True, slots=True)
class Roof:
    bytes_a_second: float
    flops_a_second: float

    def over(self, intensity: float) -> float:
        """Operations a second, at most."""
        return min(self.flops_a_second, intensity * self.bytes_a_second)


def roof(device: CudaDevice, size: Size) -> Roof:
    return Roof(bandwidth(device, size), _peak(device, size))


def _peak(device: CudaDevice, size: Size) -> float:
    """Operations a second of a large square product."""
    width = size.square
    a, b = random(device, width, width), random(device, width, width)
    return 2 * width**3 / timed(partial(torch.mm, a, b))


def points(device: CudaDevice, size: Size) -> list[Point]:
    return [*_products(device, size), *_adapters(device, size), *_attention(device, size)]


def _products(device: CudaDevice, size: Size) -> Iterator[Point]:
    weight = random(device, 2 * size.config.intermediate, size.config.hidden)
    base = device.linear(weight, site=GATE_UP)
    for tokens in size.tokens:
        x = random(device, tokens, weight.shape[1])
        moved = weight.nbytes + x.nbytes + base(x).nbytes
        seconds = timed(partial(base, x))
        yield Point("base product", f"{tokens} tokens", 2 * tokens * weight.numel(), moved, seconds)


def _adapters(device: CudaDevice, size: Size) -> Iterator[Point]:
    for distinct in size.adapters:
        held = resident(device, size, (RANK,), distinct, site=GATE_UP)
        for tokens in (count for count in size.tokens if count >= distinct):
            deltas = device.deltas(segments_of(held.banks, tokens), tokens)
            x, y = random(device, tokens, held.inputs), random(device, tokens, held.outputs)
            seconds = timed(partial(add, deltas, y, x, GATE_UP))
            # gate and up have an A each; each writes its half of y.
            flops = 2.0 * tokens * RANK * (2 * held.inputs + held.outputs)
            moved = held.down_bytes + held.up_bytes + x.nbytes + 2 * y.nbytes
            yield Point("adapters", f"{distinct} of {tokens} tokens", flops, moved, seconds)


def _attention(device: CudaDevice, size: Size) -> Iterator[Point]:
    config, pages = size.config, size.context // PAGE + 1
    wide = config.heads * config.head_dim
    for count in size.tokens[:3]:
        cache = random(device, count * pages, 2, config.kv_heads, PAGE, config.head_dim)
        tables = torch.randperm(len(cache)).view(count, -1).tolist()
        spans = [Span(i, 1, size.context - 1, tables[i]) for i in range(count)]
        layout = device.layout(spans, page_tokens=PAGE, group=1, window=None)
        q = random(device, count, config.heads, config.head_dim)
        seconds = timed(partial(attend, q, cache[:, 0], cache[:, 1], layout))
        flops = 4.0 * count * size.context * wide
        yield Point("decode attention", f"{count} sequences", flops, cache.nbytes, seconds)
    cache, q = cache[:pages], random(device, size.context, config.heads, config.head_dim)
    span = Span(0, size.context, 0, list(range(pages)))
    layout = device.layout([span], page_tokens=PAGE, group=1, window=None)
    seconds = timed(partial(attend, q, cache[:, 0], cache[:, 1], layout))
    flops = 2.0 * size.context**2 * wide  # half of all pairs are seen
    moved = cache.nbytes + 2 * q.nbytes
    yield Point("prefill attention", f"{size.context} tokens", flops, moved, seconds)
