"""Little memory: one pool for adapters, keys and values, against a part of it for each.

Adapters are drawn by Zipf and come from the host; what does not fit leaves and comes again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from bench.gpu_engines import GRAPH_BYTES, Rig, digest, made_engine, tokens_of
from bench.gpu_model import PAGE, Claim, Found, Row, Size, claim, made_model, random_packing
from bench.gpu_rates import drawn
from services.core.types import Digest
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.residency import Residency
from services.gpu_worker.kernels.cuda.device import CudaDevice
from services.gpu_worker.model.adapters import AdapterWeights
from services.gpu_worker.model.arena import page_elements
from services.gpu_worker.model.llama import Llama
from services.gpu_worker.model.runner import TorchRunner

RANK = 16
PARTS = (0.25, 0.5, 0.75)  # of the pages, that only adapters may have
NEEDED = (1.0, 0.5, 0.25)  # pages, of what all requests and their adapters would take at once


class Apart(Residency):
    """Pages of adapters are never counted with those of sequences."""

    def is_idle(self, adapter: Digest) -> bool:
        return False


class Split(Pool):
    """As engines have it that give adapters a part of the memory, and keys and values the rest."""

    def __init__(self, size: int, *, for_adapters: int) -> None:
        super().__init__(size, page_tokens=PAGE, keeps_prefixes=False)
        self.residency = Apart()
        self._most = for_adapters

    @property
    def available(self) -> int:
        """For sequences."""
        return self.pages.num_free + self._taken - self._most

    def reserve(self, adapter: Digest, count: int, *, keep: int) -> list[int] | None:
        while self._taken + count > self._most:
            leaving = self.residency.least_worthy()
            if leaving is None:
                return None
            self.pages.release(self.residency.drop(leaving))
            self._evicted.append(leaving)
        self._reserved[adapter] = self.pages.allocate(count)
        return self._reserved[adapter]

    @property
    def _taken(self) -> int:
        return self.residency.pages + sum(map(len, self._reserved.values()))

    def _make_room(self, count: int) -> bool:
        return count <= self.available


def pressure(device: CudaDevice, size: Size, _: float) -> Found:
    network = made_model(size.config, device)
    packing = random_packing(size.config, RANK, page_elements(size.config, PAGE))
    weights = AdapterWeights(replace(packing, image=device.stage(packing.image)))
    crowd = drawn([digest(index) for index in range(size.pressed)], size.requests)
    sequence = -(-(size.prompt + size.outputs) // PAGE)
    all_ = size.requests * sequence + len({*crowd}) * weights.pages
    rows: list[Row] = []
    claims: list[Claim] = []
    for needed in NEEDED:
        pages = max(round(all_ * needed), 4 * (weights.pages + sequence))
        measured = partial(_rate, network, size, weights, crowd, pages=pages)
        rates = {"one pool": measured(pool=_one(pages))}
        for part in PARTS:
            if int(pages * part) >= weights.pages and pages * (1 - part) >= 2 * sequence:
                rates[f"{part:.0%} for adapters"] = measured(pool=_split(pages, part))
        rows += [
            Row(f"memory for {needed:.0%} of all, {name}", rate, "tokens/s")
            for name, rate in rates.items()
        ]
        one, *splits = rates.values()
        if splits:
            what = f"memory for {needed:.0%} of all: one pool over the best split"
            claims.append(claim(what, one, max(splits), ">= 1"))
    return rows, claims


def _one(pages: int) -> Callable[[], Pool]:
    return lambda: Pool(pages, page_tokens=PAGE, keeps_prefixes=False)


def _split(pages: int, part: float) -> Callable[[], Pool]:
    return lambda: Split(pages, for_adapters=int(pages * part))


def _rate(
    network: Llama,
    size: Size,
    weights: AdapterWeights,
    crowd: Sequence[Digest | None],
    *,
    pool: Callable[[], Pool],
    pages: int,
) -> float:
    """Output tokens a second, copies of adapters included."""
    runner = TorchRunner(network, pages=pages, page_tokens=PAGE, graph_bytes=GRAPH_BYTES)
    rig = Rig(made_engine(network, size, pool(), runner), size, [])
    _run(rig, weights, crowd)  # compiles, records
    rate = _run(rig, weights, crowd)
    del rig, runner
    torch.cuda.empty_cache()
    return rate


def _run(rig: Rig, weights: AdapterWeights, crowd: Sequence[Digest | None]) -> float:
    for adapter in crowd:
        rig.submit(adapter, rig.size.prompt, rig.size.outputs)
    begun, tokens, idle = time.perf_counter(), 0, 0
    while idle < len(crowd):
        for adapter in sorted(rig.engine.wanted()):
            fill = rig.engine.reserve(adapter, weights)
            if fill is not None:
                fill()
                rig.engine.activate(adapter)
        report = rig.engine.step()
        tokens += tokens_of(report)
        assert not report.refused, report.refused
        if report.is_idle and not report.waiting:
            return tokens / (time.perf_counter() - begun)
        idle = idle + 1 if report.is_idle else 0
    raise RuntimeError(f"{report.waiting} requests never start")
