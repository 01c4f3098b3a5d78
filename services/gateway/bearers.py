"""Keys that were looked up a moment ago, as those of most requests were."""

import time
from collections.abc import Callable
from typing import Protocol

from services.core.types import KeyId, Share
from services.gateway.keys import Key

FRESH_SECONDS = 1.0
"""How long it takes at most until what changed at another gateway holds here."""
MOST_KNOWN = 100_000

Found = tuple[Key, Share]


class BearerRepository(Protocol):
    async def bearer(self, key: KeyId) -> Found | None:
        """A key, and its tenant's share."""
        ...


class Bearers:
    """What changes at this gateway holds from the next request on."""

    def __init__(
        self, repository: BearerRepository, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._repository = repository
        self._clock = clock
        self._known: dict[KeyId, tuple[float, Found]] = {}  # and until when it is fresh
        self._changes = 0

    def known(self, key: KeyId) -> Found | None:
        until, known = self._known.get(key, (0.0, None))
        return known if self._clock() < until else None

    async def look_up(self, key: KeyId) -> Found | None:
        changes, until = self._changes, self._clock() + FRESH_SECONDS
        found = await self._repository.bearer(key)
        if found is not None and changes == self._changes:  # else it may be what was before
            if len(self._known) >= MOST_KNOWN:
                self._known = {}
            self._known[key] = until, found
        return found

    def forget(self) -> None:
        """Something of them has changed."""
        self._changes += 1
        self._known.clear()
