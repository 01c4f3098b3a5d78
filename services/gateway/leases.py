"""Gateways that have died: what they left is closed, once, by whoever sees it.

That is requests open on the books, and reservations. Who lives says so by beats, which the ledger
writes (`Ledger`); there is no other sign of life.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import structlog

log = structlog.get_logger()


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


@dataclass(frozen=True, slots=True)
class Left:
    """How much somebody left."""

    requests: int = 0
    reservations: int = 0


class LeaseRows(Protocol):
    async def beats(self) -> dict[str, int]:
        """The newest beat of every instance that there is, or that has requests open or anything
        reserved; of one that never beat, 0."""
        ...

    async def close_lost(self, instance: str, beat: int) -> Left:
        """Close its requests as lost and settle its reservations whole, unless it beat again since.
        It may only have been slow: what it then says of its requests still counts, and what it
        settles is settled already."""
        ...


class Recovery:
    """What every gateway does for all the others."""

    def __init__(
        self,
        rows: LeaseRows,
        *,
        instance: str,
        lease_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows = rows
        self._instance = instance
        self._lease = lease_seconds
        self._silence = Silence(lease_seconds)
        self._now = now

    async def look(self) -> None:
        beats = await self._rows.beats()
        beats.pop(self._instance, None)
        for instance, beat in self._silence.look(beats, self._now()).items():
            left = await self._rows.close_lost(instance, beat)
            log.warning("gateway_lost", instance=instance, **asdict(left))

    async def run(self) -> None:
        """For good."""
        while True:
            try:
                await self.look()
            except Exception:  # the database may be well again the next time
                log.exception("recovery_failed")
            await asyncio.sleep(self._lease / 5)
