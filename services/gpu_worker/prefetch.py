"""What requests will need is fetched before they come: what an alias comes to mean, and the
adapters of those who wait elsewhere."""

import asyncio
from typing import Protocol

import structlog

from services.core.changes import Change
from services.core.types import Digest

log = structlog.get_logger()

MOST_WAITING = 256


class Worker(Protocol):
    def holds(self, digest: Digest) -> bool: ...
    async def prefetch(self, digest: Digest) -> None: ...


class Prefetcher:
    """A runtime.watch.Follower. One version at a time, the one most lately promoted first: that
    of an alias whose version of before this worker holds, so that requests for it come here."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting: list[Digest] = []
        self._wake = asyncio.Event()

    async def begin(self) -> None:
        pass  # a version that was missed comes with its first request

    async def change(self, change: Change) -> None:
        if not change.previous_digest or not self._worker.holds(change.previous_digest):
            return
        self.want(*(digest for digest in (change.digest, change.canary_digest) if digest))

    def want(self, *digests: Digest) -> None:
        """Before all that was wanted earlier."""
        self._waiting = [digest for digest in self._waiting if digest not in digests]
        self._waiting += digests
        del self._waiting[:-MOST_WAITING]
        self._wake.set()

    async def up_to_date(self) -> None:
        pass

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                digest = self._waiting.pop()
                if not self._worker.holds(digest):
                    await self._worker.prefetch(digest)
                    log.info("adapter_prefetched", digest=digest)
