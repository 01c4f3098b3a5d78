"""Steps that are recorded once and replayed: what a device brings that gains by it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from services.gpu_worker.kernels.device import Deltas, Layout, Segment, Span


class Graph(Protocol):
    """Work that was recorded."""

    @property
    def size_bytes(self) -> int:
        """Of the device's memory, that it took."""
        ...

    def replay(self) -> Tensor:
        """What the work gives now. It lies where it lay the last time."""
        ...


class FixedInputs(Protocol):
    """Of steps with one row a sequence, at addresses that never change: each step writes its own
    numbers there."""

    @property
    def tokens(self) -> Tensor: ...  # [rows], as are all of these
    @property
    def positions(self) -> Tensor: ...
    @property
    def pages(self) -> Tensor: ...
    @property
    def offsets(self) -> Tensor: ...
    @property
    def rows(self) -> Tensor:
        """All of them, in order."""
        ...

    @property
    def layout(self) -> Layout: ...
    @property
    def deltas(self) -> Deltas: ...

    def write(
        self, tokens: Sequence[int], spans: Sequence[Span], segments: Sequence[Segment]
    ) -> None:
        """One span a row, none of which sees more than these were made for."""
        ...


class Recorder(Protocol):
    """Of one device and one memory."""

    def grows(self, segments: Sequence[Segment]) -> bool:
        """Whether these are larger than any so far: then inputs that were made for adapters before
        are too small for them."""
        ...

    def inputs(self, rows: int, tokens: int, *, adapts: bool) -> FixedInputs:
        """`tokens`: that a row sees at most; `adapts`: for adapters as large as any so far."""
        ...

    def record(self, work: Callable[[], Tensor]) -> Graph:
        """Work that takes all it knows from memory. It is done at least once."""
        ...
