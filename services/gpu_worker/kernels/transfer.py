"""From the host to the device without making the step wait, and back at its end."""

from collections.abc import Sequence

import torch
from torch import Tensor


def integers(values: Sequence[int], place: torch.device) -> Tensor:
    """int64. See `sent`."""
    return sent(torch.tensor(values, dtype=torch.long), place)


def sent(values: Tensor, place: torch.device) -> Tensor:
    """The host's, on the device. The copy is ordered before what the current stream does next."""
    return values.pin_memory().to(place, non_blocking=True) if place.type == "cuda" else values


def fetched(values: Tensor) -> Tensor:
    """The device's, on the host: once all is done that the current stream was asked for."""
    if values.device.type != "cuda":
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return host


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
