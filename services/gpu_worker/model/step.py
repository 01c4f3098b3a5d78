"""Everything a step feeds to the network; there is no other context."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from services.core.types import Digest
from services.gpu_worker.engine.plan import StepPlan
from services.gpu_worker.kernels.device import Deltas, Layout, Span
from services.gpu_worker.kernels.reference import Places


@dataclass(frozen=True, slots=True)
class StepInputs:
    """T tokens of any number of sequences, of which B sample."""

    tokens: Tensor  # [T]
    places: Places
    layout: Layout
    deltas: Deltas
    sampling_rows: Tensor  # [B]


@dataclass(frozen=True, slots=True)
class StepNumbers:
    """A plan as integers: all that the network wants to know of it."""

    tokens: Sequence[int]
    spans: Sequence[Span]
    adapters: Sequence[tuple[int, int, Digest | None]]
    """Neighbouring rows of one adapter: the first, one more than the last, and whose they are."""
    sampling_rows: Sequence[int]


def numbers_of(plan: StepPlan) -> StepNumbers:
    tokens: list[int] = []
    spans: list[Span] = []
    for part in plan.slices:
        spans.append(Span(len(tokens), part.count, part.start, part.sequence.pages))
        tokens += part.sequence.tokens[part.start : part.start + part.count]
    adapters = []
    placed = zip(plan.slices, spans, strict=True)
    for adapter, group in groupby(placed, key=lambda pair: pair[0].sequence.request.adapter):
        members = [span for _, span in group]
        adapters.append((members[0].first, members[-1].last + 1, adapter))
    sampling = [s.last for s, part in zip(spans, plan.slices, strict=True) if part.samples]
    return StepNumbers(tokens, spans, adapters, sampling)
