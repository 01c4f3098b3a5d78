"""Decoding without launches: steps of one token a sequence, recorded once for every bucket.

A step launches hundreds of kernels, which can take the host longer than it takes the GPU to run
them. So a step is filled up with rows whose keys and values go to a page that nobody reads, and
what was recorded for so many rows is replayed: only numbers change, in memory that stays. Steps
without adapters have graphs of their own, so that adapters which nobody uses cost nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import structlog
import torch
from torch import Tensor

from services.gpu_worker.kernels.device import PagedKv, Segment, Span
from services.gpu_worker.kernels.graphs import FixedInputs, Graph, Recorder
from services.gpu_worker.kernels.reference import Places
from services.gpu_worker.model.llama import Llama
from services.gpu_worker.model.step import StepInputs, StepNumbers

log = structlog.get_logger()

SMALL = (1, 2, 4)  # buckets below multiples of eight rows
EIGHT = 8
REACH = 256  # tokens that a row sees, in the least bucket


@dataclass(frozen=True, slots=True)
class Bucket:
    """Of steps that one graph is for."""

    rows: int
    tokens: int  # that a row sees at most
    adapts: bool  # whether any row has an adapter
    folded: bool  # whether the second weights are used


@dataclass(frozen=True, slots=True)
class _Held:
    inputs: FixedInputs
    graph: Graph


class Graphs:
    """Of one runner. They are recorded when they are first of use, until their memory is spent."""

    def __init__(
        self,
        recorder: Recorder,
        caches: Sequence[PagedKv],
        *,
        page: int,
        context: int,
        most_bytes: int,
    ) -> None:
        """`page`: that nobody reads; `context`: tokens of a sequence at most."""
        self._recorder = recorder
        self._caches = caches
        self._page = page
        self._context = context
        self._most_bytes = most_bytes
        self._held: dict[Bucket, _Held] = {}
        self._is_full = False

    @torch.inference_mode()
    def run(
        self, network: Llama, step: StepNumbers, segments: Sequence[Segment], *, folded: bool
    ) -> Tensor | None:
        """Logits, until the next step; None if the step has to be run as it is. `folded`: whether
        the network is that of the second weights, of which there is one too."""
        if not repeats(step):
            return None
        if segments and self._recorder.grows(segments):
            self._held = {at: held for at, held in self._held.items() if not at.adapts}
        seen = max(span.position for span in step.spans) + 1
        rows, tokens = rows_for(len(step.tokens)), reach_for(seen, self._context)
        bucket = Bucket(rows, tokens, bool(segments), folded)
        if bucket not in self._held and not self._has_memory():
            return None
        held = self._written(bucket, padded(step, rows, self._page), segments, network)
        return held.graph.replay()[: len(step.tokens)]

    def _written(
        self, bucket: Bucket, step: StepNumbers, segments: Sequence[Segment], network: Llama
    ) -> _Held:
        """What is recorded runs on its numbers at once, so they come first."""
        if bucket in self._held:
            held = self._held[bucket]
            held.inputs.write(step.tokens, step.spans, segments)
            return held
        inputs = self._recorder.inputs(bucket.rows, bucket.tokens, adapts=bucket.adapts)
        inputs.write(step.tokens, step.spans, segments)
        graph = self._recorder.record(lambda: self._forward(network, inputs))
        self._held[bucket] = _Held(inputs, graph)
        log.info("step_recorded", **asdict(bucket), size_bytes=graph.size_bytes)
        return self._held[bucket]

    def _forward(self, network: Llama, inputs: FixedInputs) -> Tensor:
        cos, sin = network.rope.at(inputs.positions)
        places = Places(cos, sin, pages=inputs.pages, offsets=inputs.offsets)
        step = StepInputs(inputs.tokens, places, inputs.layout, inputs.deltas, inputs.rows)
        return network.forward(step, self._caches)

    def _has_memory(self) -> bool:
        used = sum(held.graph.size_bytes for held in self._held.values())
        if used >= self._most_bytes and not self._is_full:
            self._is_full = True
            log.warning("no_memory_for_more_graphs", graphs=len(self._held), size_bytes=used)
        return used < self._most_bytes


def repeats(step: StepNumbers) -> bool:
    """Whether every slice is one token, after which one is sampled."""
    return 0 < len(step.tokens) == len(step.spans) == len(step.sampling_rows)


def rows_for(count: int) -> int:
    """Of the least bucket for so many."""
    small = (rows for rows in SMALL if count <= rows)
    return next(small, -(-count // EIGHT) * EIGHT)


def reach_for(tokens: int, context: int) -> int:
    """Of the least bucket for rows that see so many: each is four times the one before."""
    reach = REACH
    while reach < tokens:
        reach *= 4
    return min(reach, context)


def padded(step: StepNumbers, rows: int, page: int) -> StepNumbers:
    """With rows of sequences that begin in `page`, and of the base model, up to so many."""
    first = len(step.tokens)
    more = [Span(row, 1, 0, (page,)) for row in range(first, rows)]
    return replace(
        step,
        tokens=[*step.tokens, *(0 for _ in more)],
        spans=[*step.spans, *more],
        sampling_rows=range(rows),
    )
