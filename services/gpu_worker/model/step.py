"""Everything a step feeds to the network; there is no other context."""

from dataclasses import dataclass

from torch import Tensor

from services.gpu_worker.kernels.cpu import Deltas
from services.gpu_worker.model.attention import KvLayout


@dataclass(frozen=True, slots=True)
class StepInputs:
    """T tokens of any number of sequences, of which B sample."""

    tokens: Tensor  # [T]
    positions: Tensor  # [T]
    kv: KvLayout
    deltas: Deltas
    sampling_rows: Tensor  # [B]
