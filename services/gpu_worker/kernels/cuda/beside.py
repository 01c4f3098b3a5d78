"""A second stream: what adapters' kernels make of x, while the base's product is computed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from services.gpu_worker.kernels.cuda.dot import WIDENS


class Beside:
    """If it is not wanted, and where kernels are interpreted, all is done in its turn.

    Streams wait for each other's events, never the host; a graph records both of them.
    """

    def __init__(self, place: torch.device, *, wanted: bool) -> None:
        self._place = place
        self._stream: torch.cuda.Stream | None = None
        if wanted and place.type == "cuda" and not WIDENS.value:
            # Its few blocks get their places before the product takes them all.
            self._stream = torch.cuda.Stream(place, priority=-1)

    @contextmanager
    def work(self) -> Iterator[None]:
        """What is asked for here follows what was asked for before, and nothing else."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._place))
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """What is asked for from now on follows the work."""
        if self._stream is not None:
            torch.cuda.current_stream(self._place).wait_stream(self._stream)
