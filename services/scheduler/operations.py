"""What operators have done to the fleet."""

import re
from collections.abc import Sequence

from services.core.errors import InvalidRequest, NotFound
from services.core.reports import AdapterPlace
from services.core.types import Digest, WorkerId
from services.policies.placement.homes import homes
from services.scheduler.fleet import Fleet
from services.scheduler.loop import Loop
from services.scheduler.orders import Preload
from services.scheduler.repository import SqlWishes
from services.scheduler.spread import Spread
from services.scheduler.wishes import Pin, Pinned, WorkerWish
from services.scheduler.worker import Worker

LONGEST_ID = 255
MOST_WORKERS = 10_000

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Operations:
    """Wishes are in SQL before they are in effect."""

    def __init__(self, fleet: Fleet, wishes: SqlWishes, loop: Loop, spread: Spread) -> None:
        self._fleet = fleet
        self._wishes = wishes
        self._loop = loop
        self._spread = spread

    async def set_worker(self, worker: WorkerId, wish: WorkerWish, by: str) -> Worker:
        """Raises NotFound if nothing is known of it, unless it is to serve."""
        if not 0 < len(worker) <= LONGEST_ID:
            raise InvalidRequest.of("worker_id", f"must have 1 to {LONGEST_ID} characters")
        known = worker in self._fleet.wishes.workers or self._find(worker) is not None
        if not known and wish is not WorkerWish.SERVE:
            raise NotFound(f"there is no worker {worker!r}")
        await self._wishes.set_worker(worker, wish, by)
        self._fleet.wishes.workers[worker] = wish
        self._fleet.tell()
        self._fleet.wake(worker)
        self._loop.wake()
        return self._find(worker) or Worker.away(worker, wish)

    async def pin(self, adapter: Digest, base_model: str, count: int, by: str) -> list[WorkerId]:
        """To so many workers; 0 lets it go. Where it is kept now."""
        _require_digest(adapter)
        if count > MOST_WORKERS:
            raise InvalidRequest.of("workers", f"must be at most {MOST_WORKERS}")
        if count == 0:
            await self._wishes.unpin(adapter)
            self._fleet.wishes.pins.pop(adapter, None)
            return []
        pin = Pin(adapter, self.model(base_model), count)
        await self._wishes.pin(pin, by)
        self._fleet.wishes.pins[adapter] = pin
        return self._pinned_to(adapter)

    def pins(self) -> list[Pinned]:
        """By digest."""
        live = self._fleet.live()
        return [
            Pinned(
                pin,
                [worker.identity.id for worker in live if _has(worker, adapter)],
                [worker.identity.id for worker in live if adapter in worker.report.without_room],
            )
            for adapter, pin in sorted(self._fleet.wishes.pins.items())
        ]

    def preload(
        self, adapter: Digest, base_model: str, workers: Sequence[WorkerId]
    ) -> list[WorkerId]:
        """To these, or to its home. Raises NotFound if one of them is not live."""
        _require_digest(adapter)
        live = {worker.identity.id for worker in self._fleet.live()}
        for worker in workers:
            if worker not in live:
                raise NotFound(f"there is no live worker {worker!r}")
        chosen = list(dict.fromkeys(workers)) or self._homes(adapter, self.model(base_model))
        for worker in chosen:
            self._fleet.order(worker, Preload(adapter))
        return chosen

    def homes(self, adapter: Digest) -> int:
        """Workers that should have it."""
        return self._spread.count(adapter)

    def model(self, named: str) -> str:
        """Raises InvalidRequest if none is named and there is not just one."""
        if named:
            return named
        models = {worker.identity.base_model for worker in self._fleet.live()}
        if len(models) != 1:
            raise InvalidRequest.of("base_model", f"name it: the fleet has {len(models)}")
        return models.pop()

    def _homes(self, adapter: Digest, base_model: str) -> list[WorkerId]:
        serving = [each.id for each in self._fleet.open() if each.base_model == base_model]
        return list(homes(adapter, dict.fromkeys(serving, 1.0), self.homes(adapter)))

    def _pinned_to(self, adapter: Digest) -> list[WorkerId]:
        serving = [identity.id for identity in self._fleet.open()]
        return [worker for worker in serving if adapter in self._fleet.kept_adapters(worker)]

    def _find(self, worker: WorkerId) -> Worker | None:
        found = (each for each in self._fleet.workers() if each.identity.id == worker)
        return next(found, None)


def place_of(worker: Worker, adapter: Digest) -> AdapterPlace | None:
    """The best that the adapter is at on the worker."""
    if adapter in worker.report.resident:
        return AdapterPlace.DEVICE
    loads = worker.report.adapters or ()
    return next((load.place for load in loads if load.digest == adapter), None)


def _has(worker: Worker, adapter: Digest) -> bool:
    return place_of(worker, adapter) is AdapterPlace.DEVICE


def _require_digest(adapter: str) -> None:
    if not _DIGEST.fullmatch(adapter):
        raise InvalidRequest.of("adapter_digest", "must be 64 hexadecimal digits")
