"""How long adapters take to come, learnt from those that came."""

from services.core.reports import TransferTimes

LEARNING_RATE = 0.1
SPREAD = 0.2  # of sizes, as a share of their mean, below which they do not say what a byte takes


class Transfers:
    """A line through size and time, weighted exponentially towards the last."""

    def __init__(self, base_ms: float) -> None:
        """`base_ms`: that any transfer is believed to take while all were about as large."""
        self._base_ms = base_ms
        self._weight = self._size = self._ms = self._size_size = self._size_ms = 0.0

    def took(self, size: int, milliseconds: float) -> None:
        """One of so many bytes."""
        kept = 1 - LEARNING_RATE
        self._weight = self._weight * kept + 1
        self._size = self._size * kept + size
        self._ms = self._ms * kept + milliseconds
        self._size_size = self._size_size * kept + size * size
        self._size_ms = self._size_ms * kept + size * milliseconds

    def times(self) -> TransferTimes | None:
        """None while nothing came."""
        if not self._size:
            return None
        size, milliseconds = self._size / self._weight, self._ms / self._weight
        variance = self._size_size / self._weight - size * size
        if variance > (SPREAD * size) ** 2:
            slope = max(0.0, (self._size_ms / self._weight - size * milliseconds) / variance)
            base = max(0.0, milliseconds - slope * size)
        else:
            base = min(self._base_ms, milliseconds)
        return TransferTimes(base, (milliseconds - base) / size, round(size))
