"""Runs the adapter store."""

from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from services.adapter_store.blobs import open_blobs
from services.adapter_store.catalog import Catalog
from services.adapter_store.repository import SqlAdapterRepository
from services.adapter_store.servicer import AdapterStoreServicer
from services.adapter_store.settings import AdapterStoreSettings
from services.runtime import telemetry
from services.runtime.access import ADAPTER_STORE, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.db import close_sessions, open_sessions
from services.runtime.migrate import require_current
from services.runtime.server import Server, run, run_until_stopped
from services.runtime.settings import load


async def main() -> None:
    settings = load(AdapterStoreSettings)
    telemetry.setup("adapter_store", log_format=settings.log_format, level=settings.log_level)
    await require_current(settings.database_url)
    sessions = open_sessions(settings.database_url)
    catalog = Catalog(
        SqlAdapterRepository(sessions),
        open_blobs(settings.blob_url),
        settings.uploads_folder,
        settings.limits,
    )
    gate = Gate(ServiceToken(settings.service_token.get_secret_value()), scopes_of(ADAPTER_STORE))
    server = Server(address=settings.address, gate=gate, services=[ADAPTER_STORE])
    rpc.add_AdapterStoreServiceServicer_to_server(AdapterStoreServicer(catalog), server.grpc)
    await run_until_stopped(server, drain_seconds=settings.drain_seconds)
    await close_sessions(sessions)


if __name__ == "__main__":
    run(main)
