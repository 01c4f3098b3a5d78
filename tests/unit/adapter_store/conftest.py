"""An adapter store's uploads over SQLite and a folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.adapter_store.blobs import open_blobs
from services.adapter_store.repositories.base_models import SqlBaseModelRepository
from services.adapter_store.repositories.blobs import SqlBlobRepository
from services.adapter_store.repositories.uploads import SqlUploadRepository
from services.adapter_store.repositories.versions import SqlVersionRepository
from services.adapter_store.staging import Staging
from services.adapter_store.uploads import StoreLimits, Uploads
from services.adapter_store.weights import Weights
from services.runtime.db import close_sessions, open_sessions
from tests.databases import migrated
from tests.unit.adapter_store.test_validation import BASE


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with migrated("sqlite", tmp_path) as url:
        yield url


@pytest.fixture
async def sessions(url: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    sessions = open_sessions(url)
    yield sessions
    await close_sessions(sessions)


@pytest.fixture
def weights(sessions: async_sessionmaker[AsyncSession], tmp_path: Path) -> Weights:
    return Weights(SqlBlobRepository(sessions), open_blobs(f"file://{tmp_path / 'blobs'}"))


@pytest.fixture
async def uploads(
    sessions: async_sessionmaker[AsyncSession], weights: Weights, tmp_path: Path
) -> Uploads:
    base_models = SqlBaseModelRepository(sessions)
    await base_models.register(BASE)
    return Uploads(
        SqlUploadRepository(sessions),
        adapters=SqlVersionRepository(sessions),
        base_models=base_models,
        weights=weights,
        staging=Staging(tmp_path / "uploads"),
        limits=StoreLimits(max_adapter_bytes=1 << 20, max_uploads=3, max_adapters=3),
    )
