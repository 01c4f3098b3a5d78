"""Everything a step feeds to the network; there is no other context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from services.gpu_worker.model.adapters import FusedDelta
from services.gpu_worker.model.attention import KvLayout


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring rows of one adapter; rows of the base model are in none."""

    first: int
    last: int
    deltas: Mapping[str, FusedDelta]


@dataclass(frozen=True, slots=True)
class StepInputs:
    """T tokens of any number of sequences, of which B sample."""

    tokens: Tensor  # [T]
    positions: Tensor  # [T]
    kv: KvLayout
    segments: Sequence[Segment]
    sampling_rows: Tensor  # [B]


def add_deltas(y: Tensor, x: Tensor, site: str, segments: Sequence[Segment]) -> Tensor:
    """Add to y what each segment's adapter makes of x at this fused linear ("0.qkv")."""
    for segment in segments:
        delta = segment.deltas.get(site)
        if delta is not None:
            delta.add_to(y[segment.first : segment.last], x[segment.first : segment.last])
    return y
