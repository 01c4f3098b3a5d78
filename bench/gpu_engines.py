"""Engines on a GPU with random adapters resident, and how fast they step."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.gpu_model import PAGE, Size
from bench.workload import prompt
from services.core.types import Digest, RequestId, SamplingParams
from services.gpu_worker.engine.batcher import Batcher
from services.gpu_worker.engine.engine import Engine, StepReport
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.merging import Merging
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.adapters import AdapterWeights
from services.gpu_worker.model.arena import page_elements
from services.gpu_worker.model.llama import Llama
from services.gpu_worker.model.merging import SecondWeights
from services.gpu_worker.model.packing import Packing
from services.gpu_worker.model.runner import TorchRunner
from services.policies.merging.batches import Policy

GRAPH_BYTES = 2 << 30
STEP_TOKENS = 2048
WARM = 3  # steps


@dataclass(slots=True)
class Rig:
    engine: Engine
    size: Size
    digests: list[Digest]
    number: int = 0  # of the next request

    def submit(self, adapter: Digest | None, tokens: int, outputs: int) -> RequestId:
        sampling = SamplingParams(max_tokens=outputs, temperature=0.0, ignore_eos=True)
        ids = tuple(token % self.size.config.vocabulary for token in prompt(self.number, tokens))
        name = RequestId(str(self.number))
        self.engine.submit(EngineRequest(name, ids, sampling, adapter))
        self.number += 1
        return name

    def decode_seconds(self, adapters: Sequence[Digest | None]) -> float:
        """Median of steps in which each of these decodes a token, as those see it who wait."""
        size = self.size
        outputs = size.steps + WARM + 2 + len(adapters)
        names = [self.submit(adapter, size.prompt, outputs) for adapter in adapters]
        while (report := self.engine.step()).prompt_tokens or report.sequences < len(names):
            assert not report.is_idle
        for _ in range(WARM):  # records what there is to record
            self.engine.step()
        taken = [self._timed() for _ in range(size.steps)]
        for name in names:
            self.engine.cancel(name)
        return statistics.median(taken)

    def prefill_seconds(self, adapters: Sequence[Digest | None]) -> float:
        """Median of a step of all their prompts."""
        each = self.size.prefill // len(adapters)
        taken = []
        for _ in range(WARM + self.size.steps // 4):
            for adapter in adapters:
                self.submit(adapter, each, 1)
            taken.append(self._timed())
            assert self.engine.step().is_idle
        return statistics.median(taken[WARM:] or taken)

    def rate(self, adapters: Sequence[Digest | None]) -> float:
        """Output tokens a second with all of these at once."""
        for adapter in adapters:
            self.submit(adapter, self.size.prompt, self.size.outputs)
        begun, tokens = time.perf_counter(), 0
        while not (report := self.engine.step()).is_idle:
            tokens += tokens_of(report)
        return tokens / (time.perf_counter() - begun)

    def _timed(self) -> float:
        begun = time.perf_counter()
        report = self.engine.step()
        assert report.sequences
        return time.perf_counter() - begun


def tokens_of(report: StepReport) -> int:
    return sum(len(piece.tokens) for _, piece in report.pieces)


def made_rig(
    network: Llama,
    size: Size,
    packings: Sequence[Packing],
    *,
    graph_bytes: int = GRAPH_BYTES,
    merging: Policy | None = None,
) -> Rig | None:
    """With every adapter resident; None if they do not fit the device."""
    elements, device = page_elements(network.config, PAGE), network.device
    needed = sum(len(packing.image) for packing in packings)
    if merging is not None:
        needed += max(len(packing.image) for packing in packings)
    longest = max(size.prompt + size.outputs + size.steps + size.batch, size.prefill)
    pages = needed + 2 * size.requests * (longest // PAGE + 1) + 64
    second = None if merging is None else SecondWeights(network)
    spare = (
        (device.spare_memory() - graph_bytes) // (elements * device.dtype.itemsize)
        if torch.cuda.is_available()
        else pages
    )
    if pages > spare:
        return None
    pool = Pool(pages, page_tokens=PAGE, keeps_prefixes=False)
    runner = TorchRunner(
        network, pages=pages, page_tokens=PAGE, second=second, graph_bytes=graph_bytes
    )
    rig = Rig(made_engine(network, size, pool, runner, merging), size, [])
    for index, packing in enumerate(packings):
        rig.digests.append(digest(index))
        fill = rig.engine.reserve(digest(index), AdapterWeights(packing))
        assert fill is not None
        fill()
        rig.engine.activate(digest(index))
    return rig


def made_engine(
    network: Llama, size: Size, pool: Pool, runner: TorchRunner, merging: Policy | None = None
) -> Engine:
    limits = Limits(max_sequences=size.requests, max_step_tokens=STEP_TOKENS)
    merges = None
    if merging is not None:
        merges = Merging(merging, runner, pool, seats=limits.max_sequences, clock=time.perf_counter)
    return Engine(
        batcher=Batcher(limits=limits, pool=pool, context_tokens=network.config.context),
        runner=runner,
        pool=pool,
        end_tokens=(),
        merging=merges,
    )


def digest(index: int) -> Digest:
    return Digest(f"{index:064d}")


def in_turn(digests: Sequence[Digest], count: int) -> list[Digest | None]:
    """So many requests, of the base model if there are no adapters."""
    return [digests[index % len(digests)] if digests else None for index in range(count)]
