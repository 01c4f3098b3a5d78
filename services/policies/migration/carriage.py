"""Whether keys and values are carried to where a sequence goes on, or computed there again."""

LEARNING_RATE = 0.3
SECONDS_A_BYTE = 1 / 500e6  # of a network that nothing is known of
LONGEST_SECONDS = 30.0  # where nothing is known of how long it takes to compute them
SHORTEST_SECONDS = 0.25
FEWEST_BYTES = 1 << 16  # less says more of the call than of the bytes


class Carriage:
    """Learns how long bytes take; what is not worth it is tried again as that is forgotten."""

    def __init__(self) -> None:
        self._seconds_per_byte = SECONDS_A_BYTE

    def pays(self, size: int, again_ms: float | None) -> bool:
        """`size` in bytes; `again_ms`: milliseconds that it takes to compute them again."""
        if again_ms is None:
            return True
        if size * self._seconds_per_byte * 1000 <= again_ms:
            return True
        self._seconds_per_byte += LEARNING_RATE * (SECONDS_A_BYTE - self._seconds_per_byte)
        return False

    def patience_seconds(self, again_ms: float | None) -> float:
        """After which it would have been better to compute them."""
        if again_ms is None:
            return LONGEST_SECONDS
        return min(LONGEST_SECONDS, max(SHORTEST_SECONDS, again_ms / 1000))

    def took(self, size: int, seconds: float) -> None:
        if size >= FEWEST_BYTES:
            error = seconds / size - self._seconds_per_byte
            self._seconds_per_byte += LEARNING_RATE * error
