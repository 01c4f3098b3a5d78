"""Searches how kernels are best launched on this GPU, and writes it down for all workers on one.

One kernel after the other, each with the best that was found for those before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import torch
from triton.runtime.errors import OutOfResources

from bench.gpu_kernels import GATE_UP, Resident, add, random, resident, segments_of, timed
from bench.gpu_model import PAGE, Row, Size
from services.gpu_worker.kernels.cuda.config import Config, Launch, path_of, write_config
from services.gpu_worker.kernels.cuda.deltas import Alone
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.kernels.device import Span

Work = Callable[[Config], float]
"""Seconds of some work that is launched so."""

REAL = torch.cuda.is_available()
BLOCKS = (32, 64, 128, 256) if REAL else (32,)
WARPS = (2, 4, 8) if REAL else (4,)
STAGES = (2, 3, 4) if REAL else (3,)
PARTS = (2, 4, 8, 16) if REAL else (2,)
SPLITS = (128, 256, 512, 1024) if REAL else (128,)
QUERIES = (16, 32, 64, 128) if REAL else (16,)
NEVER = 1 << 30  # rows


def tune(device: CudaDevice, size: Size) -> list[Row]:
    """Writes the file where there is a GPU. What it says is to be checked like what was there."""
    several = resident(device, size, (16,), size.adapters[1], site=GATE_UP)
    lora = partial(_lora, device, several, size.batch)
    decode, prompt = partial(_decode, device, size), partial(_prompt, device, size)
    best, rows = device.config, list[Row]()
    for name, work, choices in (
        ("shrink", lora, partial(launches, "shrink")),
        ("parts", lora, partial(_values, "parts", PARTS)),
        ("expand", lora, partial(launches, "expand")),
        ("beside", partial(_linear, device, several, size), partial(_values, "beside", (True,))),
        ("decode", decode, partial(launches, "decode")),
        ("split", decode, partial(_values, "split", SPLITS)),
        ("prefill", prompt, partial(launches, "prefill")),
        ("queries", prompt, partial(_values, "queries", QUERIES)),
        ("multiply", partial(_rounded, device, size), partial(launches, "multiply")),
    ):
        before = work(best)
        best, seconds = best_of(best, before, work, choices)
        rows.append(
            Row(f"{name}: {getattr(best, name)}, over the one before", seconds / before, "x")
        )
        print(rows[-1], flush=True)
    best = replace(best, alone_rows=_alone_rows(device, size, best))
    if REAL:
        path = path_of(torch.cuda.get_device_name(device.place))
        write_config(path, best)
        print(f"{path.name} is written; check the kernels again", flush=True)
    return rows


def best_of(
    config: Config, seconds: float, work: Work, choices: Callable[[Config], Iterator[Config]]
) -> tuple[Config, float]:
    best = config
    for choice in choices(config):
        try:
            taken = work(choice)
        except OutOfResources:
            continue
        if taken < seconds:
            best, seconds = choice, taken
    return best, seconds


def launches(kernel: str, config: Config) -> Iterator[Config]:
    for numbers in product(BLOCKS, WARPS, STAGES):
        yield from _values(kernel, (Launch(*numbers),), config)


def _values(name: str, values: tuple[object, ...], config: Config) -> Iterator[Config]:
    for value in values:
        try:
            yield replace(config, **{name: value})  # type: ignore[arg-type]
        except ValueError:  # it does not go with the rest
            continue


def _with(device: CudaDevice, config: Config) -> CudaDevice:
    return CudaDevice(device.place, device.dtype, config)


def _lora(device: CudaDevice, held: Resident, rows: int, config: Config) -> float:
    """What several adapters add to a decode."""
    chunked = _with(device, replace(config, alone_rows=NEVER))
    deltas = chunked.deltas(segments_of(held.banks, rows), rows)
    x = random(device, rows, held.inputs)
    y = random(device, rows, held.outputs)
    return timed(partial(add, deltas, y, x, GATE_UP))


def _linear(device: CudaDevice, held: Resident, size: Size, config: Config) -> float:
    """The same, with the product of the base."""
    rows = size.batch
    own = _with(device, config)
    deltas = own.deltas(segments_of(held.banks, rows), rows)
    base = own.linear(random(device, held.outputs, held.inputs), site=GATE_UP)
    return timed(partial(base, random(device, rows, held.inputs), deltas))


def _rounded(device: CudaDevice, size: Size, config: Config) -> float:
    """The product of a decode with weights of eight bits."""
    model, own = size.config, CudaDevice(device.place, device.dtype, config, weights="int8")
    base = own.linear(random(device, 2 * model.intermediate, model.hidden), site=GATE_UP)
    return timed(partial(base, random(device, size.batch, model.hidden)))


def _decode(device: CudaDevice, size: Size, config: Config) -> float:
    each = size.context // PAGE + 1
    tables = torch.randperm(size.batch * each).view(size.batch, -1).tolist()
    spans = [Span(i, 1, size.context - 1, tables[i]) for i in range(size.batch)]
    return _attend(device, size, config, spans)


def _prompt(device: CudaDevice, size: Size, config: Config) -> float:
    table = torch.randperm(size.context // PAGE + 1).tolist()
    return _attend(device, size, config, [Span(0, size.context, 0, table)])


def _attend(device: CudaDevice, size: Size, config: Config, spans: list[Span]) -> float:
    model, own = size.config, _with(device, config)
    pages = sum(len(span.pages) for span in spans)
    cache = random(device, pages, 2, model.kv_heads, PAGE, model.head_dim)
    layout = own.layout(spans, page_tokens=PAGE, group=1, window=None)
    q = random(device, spans[-1].last + 1, model.heads, model.head_dim)
    return timed(partial(own.attention, q, cache[:, 0], cache[:, 1], layout))


def _alone_rows(device: CudaDevice, size: Size, config: Config) -> int:
    """The least number of rows from which on products of torch are always faster."""
    held = resident(device, size, (16,), 1, site=GATE_UP)
    alone = Alone([[]] * GATE_UP + list(held.pieces))
    least = NEVER
    for rows in sorted(size.tokens, reverse=True):
        x, y = random(device, rows, held.inputs), random(device, rows, held.outputs)
        if timed(partial(add, alone, y, x, GATE_UP)) >= _lora(device, held, rows, config):
            break
        least = rows
    return least
