"""What references meant: for as long as the store is away, they go on meaning it."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

import structlog

from services.core.changes import Change
from services.core.errors import DeadlineExceeded, ModelNotFound, Unavailable
from services.core.types import RequestId, TenantId
from services.gateway.course import Adapter
from services.gateway.gateway import AdapterStore

log = structlog.get_logger()

MOST_KNOWN = 10_000
TRUSTED_SECONDS = 15 * 60.0
PATIENCE_SECONDS = 2.0  # with a store that may be at the other end of a dead link

_Key = tuple[TenantId, str]


class Resolutions:
    """An AdapterStore that asks another every time, and a runtime.watch.Follower.

    Only while that one cannot be reached, or says nothing for PATIENCE_SECONDS, does it answer by
    itself: what it was told before, if no change that touches the adapter came since, and nothing
    older than TRUSTED_SECONDS can have been missed. A canary's share is then not drawn anew.
    """

    def __init__(self, store: AdapterStore, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._now = now
        self._known: OrderedDict[_Key, Adapter] = OrderedDict()
        self._of_adapter: dict[tuple[TenantId, str], set[_Key]] = {}
        self._told = 0  # changes; an answer that one overtook is not kept
        self._trusted_until = -TRUSTED_SECONDS

    async def resolve(self, tenant: TenantId, reference: str, request: RequestId) -> Adapter:
        """Raises ModelNotFound or Unavailable."""
        key = (tenant, reference)
        if self._trusted(key) is None:
            return await self._ask(key, request)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._ask(key, request)
        if self._trusted(key) is None:  # a change came meanwhile
            return await self._ask(key, request)
        return self._recall(key, Unavailable("the adapter store says nothing"))

    async def adapters(self, tenant: TenantId) -> list[Adapter]:
        return await self._store.adapters(tenant)

    async def begin(self) -> None:
        """What was missed may have touched anything."""
        self._told += 1
        self._known.clear()
        self._of_adapter.clear()

    async def change(self, change: Change) -> None:
        if change.kind is None:  # it may touch anything
            await self.begin()
            return
        self._told += 1
        for key in self._of_adapter.pop((change.tenant, change.adapter), ()):
            del self._known[key]

    async def up_to_date(self) -> None:
        self._trusted_until = self._now() + TRUSTED_SECONDS

    async def _ask(self, key: _Key, request: RequestId) -> Adapter:
        (tenant, reference), told = key, self._told
        try:
            adapter = await self._store.resolve(tenant, reference, request)
        except (Unavailable, DeadlineExceeded) as error:
            return self._recall(key, error)
        except ModelNotFound:
            self._forget(key)
            raise
        if told == self._told:
            self._keep(key, adapter)
        return adapter

    def _trusted(self, key: _Key) -> Adapter | None:
        return self._known.get(key) if self._now() <= self._trusted_until else None

    def _recall(self, key: _Key, why: Unavailable | DeadlineExceeded) -> Adapter:
        adapter = self._trusted(key)
        if adapter is None:
            raise Unavailable("the adapter store cannot be reached") from why
        self._known.move_to_end(key)
        log.warning("reference_recalled", tenant=key[0], reference=key[1], why=why.message)
        return adapter

    def _keep(self, key: _Key, adapter: Adapter) -> None:
        self._forget(key)
        self._known[key] = adapter
        self._of_adapter.setdefault((adapter.owner, adapter.name), set()).add(key)
        if len(self._known) > MOST_KNOWN:
            self._forget(next(iter(self._known)))

    def _forget(self, key: _Key) -> None:
        adapter = self._known.pop(key, None)
        if adapter is None:
            return
        keys = self._of_adapter[adapter.owner, adapter.name]
        keys.discard(key)
        if not keys:
            del self._of_adapter[adapter.owner, adapter.name]
