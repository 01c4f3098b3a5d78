"""A tenant with quotas, the gateways that share its database, and a clock that is set."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

from services.core.errors import RateLimited
from services.core.types import TenantId
from services.gateway.course import Course
from services.gateway.quotas import Quotas
from services.gateway.repositories.quotas import SqlQuotaRepository
from services.gateway.repository import SqlTenantRepository
from services.gateway.reservations import Reservations
from services.gateway.tenants import Tenants
from services.policies.quotas import Use
from services.runtime.db import Sessions, close_sessions, open_sessions
from tests.completions import course


class Clock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A tenant, and gateways that share its database."""

    def __init__(self, sessions: Sessions, clock: Clock, tenant: TenantId) -> None:
        self.clock = clock
        self.tenant = tenant
        self.repository = SqlQuotaRepository(sessions, clock)
        self._running = AsyncExitStack()

    async def gateway(self) -> Quotas:
        reservations = Reservations(self.repository, uuid4().hex)
        await self._running.enter_async_context(reservations.kept())
        return Quotas(reservations)

    async def limit(self, key: str = "", **limits: int | None) -> None:
        await self.repository.set_limits(self.tenant, key, limits)

    async def use(self, key: str = "") -> Use:
        return (await self.repository.quota(self.tenant, key)).use

    def course(self, prompt: int = 3, most: int = 7, key: str | None = None) -> Course:
        return course(self.tenant, prompt=prompt, most=most, key=key)

    async def close(self) -> None:
        await self._running.aclose()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[World]:
    """With a new tenant."""
    sessions = open_sessions(url)
    tenants = Tenants(SqlTenantRepository(sessions), pepper="pepper", operator_token="operator")
    tenant = await tenants.create(f"t{uuid4().hex[:8]}")
    world = World(sessions, Clock(), tenant.name)
    try:
        yield world
    finally:
        await world.close()
        await close_sessions(sessions)


async def served(quotas: Quotas, course: Course, tokens: int) -> bool:
    """Whether it was let in."""
    try:
        async with quotas.keep(course):
            course.produced(tokens)
    except RateLimited:
        return False
    return True
