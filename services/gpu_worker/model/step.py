"""Everything a step feeds to the network; there is no other context."""

from dataclasses import dataclass

from torch import Tensor

from services.gpu_worker.kernels.device import Deltas, Layout
from services.gpu_worker.kernels.reference import Places


@dataclass(frozen=True, slots=True)
class StepInputs:
    """T tokens of any number of sequences, of which B sample."""

    tokens: Tensor  # [T]
    places: Places
    layout: Layout
    deltas: Deltas
    sampling_rows: Tensor  # [B]
