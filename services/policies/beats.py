"""Who lives says so by beats: numbers that change. Whose stands still has died."""

from collections.abc import Mapping


class Silence:
    """Whose beat has stood still for as long as a lease.

    No clocks are compared: what counts is how long the watcher itself has kept looking. When it
    could not look, because the database was away from all of them, its time starts anew.
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lease = lease_seconds
        self._seen: dict[str, tuple[int, float]] = {}  # the beat, and since when it is that
        self._looked = 0.0

    def look(self, beats: Mapping[str, int], now: float) -> dict[str, int]:
        """Those that are silent, with the beat at which they are. `now` in seconds."""
        before = self._seen if now - self._looked <= self._lease / 2 else {}
        self._looked = now
        self._seen = {
            instance: before[instance]
            if instance in before and before[instance][0] == beat
            else (beat, now)
            for instance, beat in beats.items()
        }
        return {
            instance: beat
            for instance, (beat, since) in self._seen.items()
            if now - since >= self._lease
        }
