"""Uploads whose bytes come past gRPC, through a real HTTP endpoint of either kind."""

import asyncio
import http.client
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.adapter_store import doors
from services.adapter_store.blobs import open_blobs
from services.adapter_store.catalog import Catalog
from services.adapter_store.collection import Collector, Keeping
from services.adapter_store.doors import BucketDoor, Door, Piece, StoreDoor
from services.adapter_store.receiver import Receiver, receiving
from services.adapter_store.repositories.base_models import SqlBaseModelRepository
from services.adapter_store.repositories.blobs import SqlBlobRepository
from services.adapter_store.repositories.changes import SqlChangeRepository
from services.adapter_store.repositories.uploads import SqlUploadRepository
from services.adapter_store.repositories.versions import SqlVersionRepository
from services.adapter_store.signing import Signer
from services.adapter_store.staging import Staging
from services.adapter_store.uploads import StoreLimits, Uploads
from services.adapter_store.weights import Weights
from services.cli.suite import free_addresses
from services.runtime.db import IN_MEMORY, Base, Sessions, close_sessions, open_sessions
from tests.buckets import bucket
from tests.unit.adapter_store.test_validation import BASE

KINDS = ("folder", "s3")
PIECE_BYTES = 1000  # of a bucket
SECRET = "secret"


@dataclass(frozen=True, slots=True)
class Direct:
    uploads: Uploads
    staging: Staging
    door: Door
    collector: Collector
    catalog: Catalog
    folder: Path
    receiver: Receiver | None


@asynccontextmanager
async def direct(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Direct]:
    async with AsyncExitStack() as ends:
        sessions = open_sessions(IN_MEMORY)
        ends.push_async_callback(close_sessions, sessions)
        async with sessions.kw["bind"].begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        staging, address = Staging(folder / "uploads"), free_addresses().uploads
        if kind == "s3":
            monkeypatch.setattr(doors, "PIECE_BYTES", PIECE_BYTES)
            ends.enter_context(bucket("adapters", monkeypatch))
            blobs = open_blobs("s3://adapters/production")
            door: Door = BucketDoor(blobs, staging)
        else:
            blobs = open_blobs(f"file://{folder / 'blobs'}")
            door = StoreDoor(f"http://{address}/", Signer(SECRET))
        weights = Weights(SqlBlobRepository(sessions), blobs)
        uploads = await _uploads(sessions, weights, staging, door)
        receiver = None
        if kind == "folder":
            receiver = Receiver(address, uploads, staging=staging, signer=Signer(SECRET))
            await ends.enter_async_context(receiving(receiver))
        versions = SqlVersionRepository(sessions)
        keeping = Keeping()
        collector = Collector(
            versions=versions,
            uploads=SqlUploadRepository(sessions),
            repository=SqlBlobRepository(sessions),
            changes=SqlChangeRepository(sessions),
            blobs=blobs,
            staging=staging,
            door=door,
            keeping=keeping,
        )
        catalog = Catalog(
            versions,
            base_models=SqlBaseModelRepository(sessions),
            weights=weights,
            undelete_within=keeping.undelete,
        )
        yield Direct(uploads, staging, door, collector, catalog, folder, receiver)


async def _uploads(sessions: Sessions, weights: Weights, staging: Staging, door: Door) -> Uploads:
    base_models = SqlBaseModelRepository(sessions)
    await base_models.register(BASE)
    return Uploads(
        SqlUploadRepository(sessions),
        adapters=SqlVersionRepository(sessions),
        base_models=base_models,
        weights=weights,
        staging=staging,
        limits=StoreLimits(max_adapter_bytes=1 << 20, max_uploads=3, max_adapters=3),
        door=door,
    )


async def arrived(here: Direct, upload_id: str, size: int) -> None:
    """Returns when so much is there, and nobody writes."""
    for _ in range(1000):
        if here.staging.committed(upload_id) == size:
            break
        await asyncio.sleep(0.01)
    async with here.staging.writer(upload_id):
        assert here.staging.committed(upload_id) == size


def put(url: str, body: bytes, length: int | None = None) -> int:
    """The status. `length`: what is declared, if it is not the body's; then the line is cut."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.putrequest("PUT", f"{parts.path}?{parts.query}", skip_accept_encoding=True)
        connection.putheader("Content-Length", str(len(body) if length is None else length))
        connection.endheaders(body)
        if length is not None and length > len(body):
            return 0
        return connection.getresponse().status
    finally:
        connection.close()


def put_all(pieces: Sequence[Piece], data: bytes) -> None:
    for piece in pieces:
        assert 200 <= put(piece.url, data[piece.offset : piece.offset + piece.length]) < 300
