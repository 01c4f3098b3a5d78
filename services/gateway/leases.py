"""Gateways that have died: what they left is closed, once, by whoever sees it.

That is requests open on the books, and reservations. Who lives says so by beats, which the ledger
writes (`Ledger`); there is no other sign of life.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

import structlog

from services.policies.beats import Silence

log = structlog.get_logger()


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
