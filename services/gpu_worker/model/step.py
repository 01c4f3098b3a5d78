"""Everything a step feeds to the network; there is no other context."""

from dataclasses import dataclass

from torch import Tensor

from services.gpu_worker.kernels.device import Deltas, Layout


@dataclass(frozen=True, slots=True)
class StepInputs:
    """T tokens of any number of sequences, of which B sample."""

    tokens: Tensor  # [T]
    positions: Tensor  # [T]
    pages: Tensor  # [T], where each one's key and value go
    offsets: Tensor  # [T], within their pages
    layout: Layout
    deltas: Deltas
    sampling_rows: Tensor  # [B]
