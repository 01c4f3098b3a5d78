"""Runs the adapter store."""

import ctypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as lifecycle_rpc
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from services.adapter_store.blobs import Blobs, open_blobs
from services.adapter_store.catalog import Catalog
from services.adapter_store.changes import Bell, Changes
from services.adapter_store.collection import Collector
from services.adapter_store.doors import BucketDoor, Door, StoreDoor
from services.adapter_store.lifecycle import Lifecycle
from services.adapter_store.lifecycle_servicer import AdapterLifecycleServicer
from services.adapter_store.receiver import Receiver, receiving, tls_of
from services.adapter_store.repositories.aliases import SqlAliasRepository
from services.adapter_store.repositories.base_models import SqlBaseModelRepository
from services.adapter_store.repositories.blobs import SqlBlobRepository
from services.adapter_store.repositories.changes import SqlChangeRepository, ring_after_commits
from services.adapter_store.repositories.notices import listen
from services.adapter_store.repositories.shares import SqlShareRepository
from services.adapter_store.repositories.uploads import SqlUploadRepository
from services.adapter_store.repositories.versions import SqlVersionRepository
from services.adapter_store.resolution import Resolver
from services.adapter_store.servicer import AdapterStoreServicer
from services.adapter_store.settings import AdapterStoreSettings
from services.adapter_store.sharing import Sharing
from services.adapter_store.signing import Signer
from services.adapter_store.staging import Staging
from services.adapter_store.uploads import Uploads
from services.adapter_store.weights import Weights
from services.runtime import telemetry
from services.runtime.access import ADAPTER_LIFECYCLE, ADAPTER_STORE, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.beside import beside
from services.runtime.db import Sessions, close_sessions, open_sessions
from services.runtime.migrate import require_current
from services.runtime.server import Server, run, run_until_stopped
from services.runtime.settings import load

M_ARENA_MAX = -8  # of malloc.h


class _Rows:
    """Every repository."""

    def __init__(self, sessions: Sessions) -> None:
        self.versions = SqlVersionRepository(sessions)
        self.aliases = SqlAliasRepository(sessions)
        self.shares = SqlShareRepository(sessions)
        self.base_models = SqlBaseModelRepository(sessions)
        self.uploads = SqlUploadRepository(sessions)
        self.blobs = SqlBlobRepository(sessions)
        self.changes = SqlChangeRepository(sessions)


async def main() -> None:
    settings = load(AdapterStoreSettings)
    _keep_memory_flat()
    telemetry.setup("adapter_store", log_format=settings.log_format, level=settings.log_level)
    await require_current(settings.database_url)
    sessions, bell = open_sessions(settings.database_url), Bell()
    ring_after_commits(sessions, bell.ring)
    rows = _Rows(sessions)
    blobs, staging = open_blobs(settings.blob_url), Staging(settings.uploads_folder)
    signer = Signer(settings.service_token.get_secret_value())
    door = _door(settings, signer, blobs, staging)
    collector = Collector(
        versions=rows.versions,
        uploads=rows.uploads,
        repository=rows.blobs,
        changes=rows.changes,
        blobs=blobs,
        staging=staging,
        door=door,
        keeping=settings.keeping,
    )
    weights = Weights(rows.blobs, blobs)
    uploads = Uploads(
        rows.uploads,
        adapters=rows.versions,
        base_models=rows.base_models,
        weights=weights,
        staging=staging,
        limits=settings.limits,
        door=door,
    )
    changes = Changes(rows.changes, bell)
    server = _server(settings, rows, uploads, weights, collector=collector, changes=changes)
    work = (
        collector.run(timedelta(seconds=settings.collect_seconds)),
        listen(settings.database_url, bell.ring),
    )
    async with beside(*work), _open(settings, uploads, staging, signer):
        await run_until_stopped(server, drain_seconds=settings.drain_seconds)
    await close_sessions(sessions)


def _door(settings: AdapterStoreSettings, signer: Signer, blobs: Blobs, staging: Staging) -> Door:
    if settings.upload_url == "bucket":
        return BucketDoor(blobs, staging)
    return StoreDoor(settings.upload_url, signer) if settings.upload_url else Door()


@asynccontextmanager
async def _open(
    settings: AdapterStoreSettings, uploads: Uploads, staging: Staging, signer: Signer
) -> AsyncIterator[None]:
    """The store's own door, if it has one."""
    if not settings.upload_address:
        yield
        return
    tls = tls_of(settings.upload_certificate, settings.upload_key)
    receiver = Receiver(settings.upload_address, uploads, staging=staging, signer=signer, tls=tls)
    async with receiving(receiver):
        yield


def _server(
    settings: AdapterStoreSettings,
    rows: _Rows,
    uploads: Uploads,
    weights: Weights,
    *,
    collector: Collector,
    changes: Changes,
) -> Server:
    resolver = Resolver(rows.versions, rows.aliases, rows.shares)
    catalog = Catalog(
        rows.versions,
        base_models=rows.base_models,
        weights=weights,
        undelete_within=settings.keeping.undelete,
    )
    gate = Gate(
        ServiceToken(settings.service_token.get_secret_value()),
        scopes_of(ADAPTER_STORE) | scopes_of(ADAPTER_LIFECYCLE),
    )
    server = Server(
        address=settings.address, gate=gate, services=[ADAPTER_STORE, ADAPTER_LIFECYCLE]
    )
    rpc.add_AdapterStoreServiceServicer_to_server(
        AdapterStoreServicer(uploads, catalog, resolver), server.grpc
    )
    lifecycle_rpc.add_AdapterLifecycleServiceServicer_to_server(
        AdapterLifecycleServicer(
            lifecycle=Lifecycle(rows.aliases, resolver),
            resolver=resolver,
            catalog=catalog,
            sharing=Sharing(rows.shares),
            collector=collector,
            changes=changes,
        ),
        server.grpc,
    )
    return server


def _keep_memory_flat() -> None:
    """Uploads pass through many threads in pieces of 1 MiB; glibc would keep some for each."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


if __name__ == "__main__":
    run(main)
