"""What other store processes on the same PostgreSQL have committed, as soon as they have."""

import asyncio
from collections.abc import Callable

import psycopg
import structlog
from sqlalchemy import make_url

from services.adapter_store.repositories.changes import CHANNEL

log = structlog.get_logger()

RECONNECT_SECONDS = 1.0


async def listen(url: str, ring: Callable[[], None]) -> None:
    """Until cancelled: ring for every change that was committed, and after every time that there
    was no connection. On SQLite nothing: it has one store process."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        return
    _, connect = parsed.get_dialect()().create_connect_args(parsed)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(**connect, autocommit=True) as line:
                await line.execute(f"LISTEN {CHANNEL}")
                ring()
                async for _ in line.notifies():
                    ring()
        except psycopg.Error as error:
            log.warning("listening_stopped", why=str(error))
        await asyncio.sleep(RECONNECT_SECONDS)
