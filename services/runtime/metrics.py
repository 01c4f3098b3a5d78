"""Metrics for Prometheus, at an address of their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector


@asynccontextmanager
async def exported(metrics: Collector, address: str) -> AsyncIterator[None]:
    """At http://`address`/metrics; raises OSError if it is taken. Empty: nowhere."""
    if not address:
        yield
        return
    registry = CollectorRegistry()
    registry.register(metrics)
    host, _, port = address.rpartition(":")
    server, thread = start_http_server(int(port), host, registry)
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
