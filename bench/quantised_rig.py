"""A model with one kind of weights, to be timed and asked; see quantised.py."""

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.engines import engine_request, prepare
from bench.workload import Arrival, prompt, random_adapters
from services.cli.suite import embedded_model
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.device import Span
from services.gpu_worker.kernels.reference import Places
from services.gpu_worker.kernels.rounding import Kind
from services.gpu_worker.model.arena import Arena
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.step import StepInputs

PAGE_TOKENS = 16
STEPS = 8

Answers = Sequence[Sequence[int]]


class Rig:
    def __init__(self, kind: Kind) -> None:
        self.model: LoadedModel = load_model(embedded_model(), device=CpuDevice(kind))
        adapters = random_adapters(self.model.card, 8)
        self._engine, self._digests = prepare(self.model, adapters, memory_bytes=1 << 30)

    def decode(self, sequences: int, adapters: int) -> float:
        """Seconds of a step in which every sequence gets a token."""
        engine = self._engine
        for index in range(sequences):
            adapter = index % adapters if adapters else None
            arrival = Arrival(0.0, prompt(index, 16), 2 * STEPS, adapter)
            engine.submit(engine_request(index, arrival, self._digests))
        while engine.step().tokens != sequences:
            pass
        taken = statistics.median(_timed(engine) for _ in range(STEPS // 2))
        while not engine.step().is_idle:
            pass
        return taken

    def prefill(self, tokens: int) -> float:
        self._engine.submit(engine_request(0, Arrival(0.0, prompt(0, tokens), 1, None), []))
        begun = time.perf_counter()
        while not self._engine.step().is_idle:
            pass
        return time.perf_counter() - begun

    def answer(self, questions: Answers, tokens: int) -> list[list[int]]:
        """The likeliest tokens, so many to each."""
        found: list[list[int]] = [[] for _ in questions]
        for index, question in enumerate(questions):
            arrival = Arrival(0.0, tuple(question), tokens, None)
            self._engine.submit(engine_request(index, arrival, []))
        while not (report := self._engine.step()).is_idle:
            for request, piece in report.pieces:
                found[int(request)] += piece.tokens
        return found

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Of every position."""
        network, at = self.model.network, torch.arange(len(tokens))
        device, config = network.device, network.config
        pages = -(-len(tokens) // PAGE_TOKENS)
        arena = Arena(config, device, pages=pages, page_tokens=PAGE_TOKENS)
        layout = device.layout(
            [Span(0, len(tokens), 0, range(pages))],
            page_tokens=PAGE_TOKENS,
            group=config.heads // config.kv_heads,
            window=config.sliding_window,
        )
        places = Places(*network.rope.at(at), pages=at // PAGE_TOKENS, offsets=at % PAGE_TOKENS)
        deltas = device.deltas([], len(tokens))
        step = StepInputs(device.integers(tokens), places, layout, deltas, at)
        return network.forward(step, arena.caches)


def _timed(engine: Engine) -> float:
    begun = time.perf_counter()
    engine.step()
    return time.perf_counter() - begun
