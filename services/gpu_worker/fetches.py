"""Adapters on their way from the store to host memory, and those that could not come."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from services.core.errors import ServingError
from services.core.types import Digest
from services.gpu_worker.engine.engine import Weights
from services.gpu_worker.engine.host_cache import HostCache
from services.policies.placement.cost import FETCH_BASE_MS
from services.policies.placement.transfers import Transfers

log = structlog.get_logger()

UNFETCHABLE_SECONDS = 30.0


class AdapterSource(Protocol):
    async def fetch(self, digest: Digest) -> Weights:
        """Verified weights, ready to load. Raises ServingError."""
        ...


class Fetches:
    """Of each adapter one at a time, however many ask."""

    def __init__(
        self,
        source: AdapterSource,
        host: HostCache,
        ended: Callable[[Digest, ServingError | None], None],
    ) -> None:
        """`ended` is told of each, and of why it failed if it did."""
        self._source = source
        self._host = host
        self._ended = ended
        self._underway: dict[Digest, asyncio.Task[None]] = {}
        self._left_alone: dict[Digest, float] = {}  # until when
        self.transfers = Transfers(FETCH_BASE_MS)

    @property
    def underway(self) -> frozenset[Digest]:
        return frozenset(self._underway)

    def begin(self, digest: Digest) -> None:
        """Unless it is on its way."""
        if digest not in self._underway:
            self._underway[digest] = asyncio.create_task(self._fetch(digest))

    async def of(self, digest: Digest) -> None:
        """Begins it, and returns when it has ended, whatever came of it."""
        self.begin(digest)
        await asyncio.wait([self._underway[digest]])

    async def idle(self) -> None:
        """Returns once none is underway."""
        while self._underway:
            await asyncio.wait(self._underway.values())

    def is_left_alone(self, digest: Digest) -> bool:
        """It could not be fetched a short time ago."""
        return time.monotonic() < self._left_alone.get(digest, 0.0)

    def cancel(self) -> None:
        for task in self._underway.values():
            task.cancel()

    async def _fetch(self, digest: Digest) -> None:
        failed: ServingError | None = None
        try:
            began = time.monotonic()
            weights = await self._source.fetch(digest)
            self.transfers.took(weights.size_bytes, 1000 * (time.monotonic() - began))
            self._host.put(digest, weights)
            self._left_alone.pop(digest, None)
        except ServingError as error:
            log.warning("adapter_failed", digest=digest, error=str(error))
            failed, now = error, time.monotonic()
            self._left_alone = {each: end for each, end in self._left_alone.items() if end > now}
            self._left_alone[digest] = now + UNFETCHABLE_SECONDS
        finally:
            del self._underway[digest]
            self._ended(digest, failed)
