"""What callers may do with jobs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from services.core.errors import InvalidRequest
from services.core.types import Fingerprint, TenantId
from services.runtime.paging import Page, page_of
from services.trainer.bases import Bases, module_names
from services.trainer.datasets import DataSets
from services.trainer.jobs import DataSet, Job, Point, Wish

LOOK_SECONDS = 0.5
MOST_POINTS = 1000


class JobRepository(Protocol):
    async def create(
        self, wish: Wish, base: Fingerprint, data: DataSet | None, *, most_unfinished: int
    ) -> Job: ...
    async def get(self, tenant: TenantId, job: str) -> Job: ...
    async def page(self, tenant: TenantId, *, before: int | None, limit: int) -> list[Job]: ...
    async def cancel(self, tenant: TenantId, job: str) -> Job: ...
    async def points(self, job: str, *, after: int, limit: int) -> list[Point]: ...


class Desk:
    def __init__(
        self,
        jobs: JobRepository,
        data: DataSets,
        bases: Bases,
        *,
        most_unfinished: int,
        require_flower: Callable[[], object],
    ) -> None:
        """`most_unfinished`: jobs of one tenant. `require_flower` raises FailedPrecondition where
        nothing can be federated."""
        self._jobs = jobs
        self._data = data
        self._bases = bases
        self._most_unfinished = most_unfinished
        self._require_flower = require_flower

    async def create(self, wish: Wish) -> Job:
        """Raises InvalidRequest, NotFound, FailedPrecondition or ResourceExhausted."""
        wish.check()
        data = None
        if wish.federation is not None:
            self._require_flower()
        else:
            data = await self._data.get(wish.tenant, wish.data_sha256)
        base = await self._bases.chosen(wish.base_model)
        known = module_names(base)
        unknown = set(wish.config.target_modules) - set(known)
        if unknown:
            what = f"{', '.join(sorted(unknown))}: {base.name} has only {', '.join(known)}"
            raise InvalidRequest.of("config.target_modules", what)
        config = replace(wish.config, target_modules=wish.config.target_modules or known)
        whole = replace(wish, base_model=base.name, config=config)
        return await self._jobs.create(
            whole, base.fingerprint, data, most_unfinished=self._most_unfinished
        )

    async def get(self, tenant: TenantId, job: str) -> Job:
        return await self._jobs.get(tenant, job)

    async def page(self, tenant: TenantId, page: Page) -> tuple[list[Job], str]:
        found = await self._jobs.page(tenant, before=page.before, limit=page.size + 1)
        return page_of(found, page, key=lambda job: str(job.number))

    async def cancel(self, tenant: TenantId, job: str) -> Job:
        return await self._jobs.cancel(tenant, job)

    async def watch(
        self, tenant: TenantId, job: str, *, after: int
    ) -> AsyncIterator[tuple[Job, Sequence[Point]]]:
        """How it stands, and what is new; until it is over."""
        told: Job | None = None
        while True:
            now = await self._jobs.get(tenant, job)  # before the points: none comes after its end
            points = await self._jobs.points(job, after=after, limit=MOST_POINTS)
            if points or now != told:
                yield now, points
                told = now
            if points:
                after = points[-1].step
            if len(points) < MOST_POINTS:
                if now.state.is_over:
                    return
                await asyncio.sleep(LOOK_SECONDS)
