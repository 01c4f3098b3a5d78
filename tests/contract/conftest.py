"""What several contracts need."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from services.adapter_store.blobs import Blobs, open_blobs
from services.core.types import TenantId
from services.gateway.repository import SqlTenantRepository
from services.gateway.tenants import Tenants
from services.runtime.db import IN_MEMORY, Base, Sessions, close_sessions, open_sessions
from tests.books import Books
from tests.buckets import bucket
from tests.contract.tenants_world import OPERATOR, Calendar
from tests.databases import KINDS, migrated
from tests.stores import BASE, Store, fresh_tenant


@pytest.fixture(scope="module", params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database of each kind, one a module."""
    with migrated(request.param, tmp_path_factory.mktemp("db")) as url:
        yield url


@pytest.fixture
async def sessions(url: str) -> AsyncIterator[Sessions]:
    sessions = open_sessions(url)
    yield sessions
    await close_sessions(sessions)


@pytest.fixture
async def fleet_sessions(tmp_path: Path) -> AsyncIterator[Sessions]:
    sessions = open_sessions(f"sqlite+aiosqlite:///{tmp_path / 'fleet.db'}")
    async with sessions.kw["bind"].begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield sessions
    await close_sessions(sessions)


@pytest.fixture
def books(sessions: Sessions) -> Books:
    return Books(sessions)


@pytest.fixture(scope="module", params=["memory", *KINDS])
def any_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The same, and one in memory that is empty."""
    if request.param == "memory":
        yield IN_MEMORY
        return
    with migrated(request.param, tmp_path_factory.mktemp("db")) as url:
        yield url


@pytest.fixture
async def store(any_url: str) -> AsyncIterator[Store]:
    store = Store(any_url)
    if any_url == IN_MEMORY:
        async with store.sessions.kw["bind"].begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
    await store.base_models.register(BASE)
    yield store
    await close_sessions(store.sessions)


@pytest.fixture
async def tenant(store: Store) -> TenantId:
    """With five versions of "sql"."""
    tenant = fresh_tenant()
    for content in range(1, 6):
        await store.commit(tenant, content)
    return tenant


@pytest.fixture(params=["memory", "folder", "s3"])
def blobs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Blobs]:
    if request.param == "memory":
        yield open_blobs("memory://")
        return
    if request.param == "folder":
        yield open_blobs(f"file://{tmp_path / 'new' / 'blobs'}")
        return
    with bucket("adapters", monkeypatch):
        yield open_blobs("s3://adapters/production")


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def repository(sessions: Sessions) -> SqlTenantRepository:
    return SqlTenantRepository(sessions)


@pytest.fixture
def tenants(repository: SqlTenantRepository, calendar: Calendar) -> Tenants:
    return Tenants(repository, pepper="pepper", operator_token=OPERATOR, now=calendar)


@pytest.fixture
async def name(tenants: Tenants) -> TenantId:
    return (await tenants.create(f"t{uuid4().hex[:8]}")).name
