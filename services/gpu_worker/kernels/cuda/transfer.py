"""From the host to the device without making the step wait."""

from collections.abc import Sequence

import torch
from torch import Tensor


def integers(values: Sequence[int], place: torch.device) -> Tensor:
    """int64. The copy is ordered before what the current stream does next."""
    host = torch.tensor(values, dtype=torch.long, pin_memory=place.type == "cuda")
    return host.to(place, non_blocking=True)


class SideStream:
    """Fills pages beside the steps."""

    def __init__(self, place: torch.device) -> None:
        self._stream = torch.cuda.Stream(place) if place.type == "cuda" else None

    def fill(self, memory: Tensor, image: Tensor, pages: Sequence[int]) -> None:
        """Returns when the copy's event has come: then the adapter may be used."""
        if self._stream is None:
            _copy(memory, image, pages)
            return
        with torch.cuda.stream(self._stream):
            _copy(memory, image, pages)
            arrived = torch.cuda.Event()
            arrived.record()
        arrived.synchronize()


def _copy(memory: Tensor, image: Tensor, pages: Sequence[int]) -> None:
    for row, page in enumerate(pages):
        memory[page].copy_(image[row], non_blocking=True)
