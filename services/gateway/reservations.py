"""Who holds what of which quota: written to the database by one task, many requests at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from services.core.errors import Unavailable
from services.core.types import KeyId, TenantId
from services.policies.quotas import Amount, Decision
from services.runtime.beside import beside

log = structlog.get_logger()

MOST_AT_ONCE = 256
MOST_KNOWN = 100_000
FRESH_SECONDS = 1.0
"""For how long a tenant without limits is taken to have none still."""
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Reservation:
    id: str
    tenant: TenantId
    key: KeyId | None
    ask: Amount


@dataclass(frozen=True, slots=True)
class Settlement:
    """Gives back what was reserved and not spent."""

    reservation: Reservation
    spent: Amount


class QuotaRepository(Protocol):
    async def limited(self, tenants: Collection[TenantId]) -> set[TenantId]:
        """Those of them of whom, or of whose keys, anything is limited."""
        ...

    async def write(
        self,
        holder: str,
        reservations: Sequence[Reservation],
        settlements: Sequence[Settlement],
    ) -> list[Decision | None]:
        """All of it in one transaction, settlements first; what is settled already is no error.
        Of each reservation whether it was made; None: no limit concerns it."""
        ...


class Reservations:
    """Made and settled together by whoever comes while the transaction before is written.

    A tenant without limits is asked after at most once a second. Nothing is settled twice: if it is
    not known whether a transaction was committed, what it was to reserve is given back, and what
    it was to settle is settled again, each once however often it is tried.
    """

    def __init__(self, repository: QuotaRepository, holder: str) -> None:
        """`holder`: a gateway's instance, by which others know whether it lives (`leases`)."""
        self._repository = repository
        self._holder = holder
        self._reserving: list[tuple[Reservation, asyncio.Future[Decision | None]]] = []
        self._settling: list[tuple[Settlement, asyncio.Future[None]]] = []
        self._wanted = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._held = 0
        self._unlimited: dict[TenantId, float] = {}  # until when, on the monotonic clock

    def unlimited(self, tenant: TenantId) -> bool:
        """Whether it is known to have no limits."""
        return time.monotonic() < self._unlimited.get(tenant, 0.0)

    def forget(self, tenant: TenantId) -> None:
        """Its limits have changed."""
        self._unlimited.pop(tenant, None)

    def reserve(self, reservation: Reservation) -> "asyncio.Future[Decision | None]":
        """Done once it is durable; None: there are no limits, and nothing to settle. Fails with
        Unavailable; then nothing is reserved in the end."""
        decided: asyncio.Future[Decision | None] = asyncio.get_running_loop().create_future()
        decided.add_done_callback(_retrieved)
        self._reserving.append((reservation, decided))
        self._want()
        return decided

    def settle(self, settlement: Settlement) -> "asyncio.Future[None]":
        """Done once it is durable, or could not be written yet and will be."""
        self._held -= 1
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append((settlement, settled))
        self._want()
        return settled

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Writes what comes. What is not settled and written within CLOSE_SECONDS of the end is
        settled whole by others, once they find that this holder lives no more."""
        async with beside(self._write_forever()):
            try:
                yield
            finally:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._quiet.wait(), CLOSE_SECONDS)

    def _want(self) -> None:
        self._quiet.clear()
        self._wanted.set()

    async def _write_forever(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._reserving or self._settling:
                reserving = self._reserving[:MOST_AT_ONCE]
                settling = self._settling[:MOST_AT_ONCE]
                del self._reserving[: len(reserving)], self._settling[: len(settling)]
                await self._write(reserving, settling)
                await asyncio.sleep(0)  # who left before it was let in gives that back now
            if not self._held:
                self._quiet.set()

    async def _write(
        self,
        reserving: list[tuple[Reservation, "asyncio.Future[Decision | None]"]],
        settling: list[tuple[Settlement, "asyncio.Future[None]"]],
    ) -> None:
        try:
            decisions = await self._decided(
                [reservation for reservation, _ in reserving],
                [settlement for settlement, _ in settling],
            )
        except Exception:  # whatever the database says, the next ones are served
            log.exception("quotas_not_written", reserving=len(reserving), settling=len(settling))
            self._again(reserving, settling)
            await asyncio.sleep(RETRY_SECONDS)
            return
        for (_, decided), decision in zip(reserving, decisions, strict=True):
            self._held += decision is not None and decision.refusal is None
            decided.set_result(decision)
        for _, settled in settling:
            if not settled.done():
                settled.set_result(None)

    def _again(
        self,
        reserving: list[tuple[Reservation, "asyncio.Future[Decision | None]"]],
        settling: list[tuple[Settlement, "asyncio.Future[None]"]],
    ) -> None:
        for _, settled in settling:
            if not settled.done():
                settled.set_result(None)
        self._settling[:0] = settling
        for reservation, decided in reserving:
            decided.set_exception(Unavailable("quotas cannot be read now", RETRY_SECONDS))
            self._held += 1  # for all that is known
            self.settle(Settlement(reservation, Amount()))

    async def _decided(
        self, reservations: list[Reservation], settlements: list[Settlement]
    ) -> list[Decision | None]:
        tenants = {reservation.tenant for reservation in reservations}
        limited = await self._repository.limited(tenants) if tenants else set()
        until = time.monotonic() + FRESH_SECONDS
        if len(self._unlimited) + len(tenants) > MOST_KNOWN:
            self._unlimited.clear()
        self._unlimited |= dict.fromkeys(tenants - limited, until)
        asked = [reservation for reservation in reservations if reservation.tenant in limited]
        if not asked and not settlements:
            return [None] * len(reservations)
        decisions = iter(await self._repository.write(self._holder, asked, settlements))
        return [next(decisions) if r.tenant in limited else None for r in reservations]


def _retrieved(decided: "asyncio.Future[Decision | None]") -> None:
    """Who asked may have gone: then nobody else looks at what went wrong."""
    if not decided.cancelled():
        decided.exception()
