"""One way to build, serve and drain a gRPC server."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.runtime.access import ENDLESS
from services.runtime.auth import Gate
from services.runtime.client import MOST_MESSAGE_BYTES
from services.runtime.interceptors import CallInterceptor

log = structlog.get_logger()

MOST_PENDING = 10_000
PENDING_SECONDS = 3600
"""Calls that came and that the event loop has yet to take: gRPC cancels what is beyond a thousand,
or waits for 30 s, without a word. What we have no room for we refuse ourselves."""

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MOST_MESSAGE_BYTES),
    ("grpc.server.max_pending_requests", MOST_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", 2 * MOST_PENDING),
    ("grpc.server_max_unrequested_time_in_server", PENDING_SECONDS),
    ("grpc.keepalive_time_ms", 60_000),  # clients that went without a word are found out
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
    ("grpc.so_reuseport", 0),
)


class Server:
    """A gRPC server with health, reflection and a graceful end."""

    def __init__(
        self,
        *,
        address: str,
        gate: Gate,
        services: Sequence[str],
        handlers: Sequence[grpc.GenericRpcHandler] = (),
        serves_at_once: bool = True,
    ) -> None:
        """`serves_at_once`: it is healthy from its start on, not only when it is told so."""
        self._stopping = asyncio.Event()
        around = CallInterceptor(gate, self._stopping, ENDLESS)
        self.grpc = grpc.aio.server(interceptors=(around,), options=SERVER_OPTIONS)
        self._health = health.aio.HealthServicer()
        self._address = address
        self._services = services
        self._serves_at_once = serves_at_once
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.grpc)
        self.grpc.add_generic_rpc_handlers(tuple(handlers))

    async def start(self) -> None:
        """Listen. Raises OSError if the address is taken."""
        try:
            self.grpc.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: {error}") from error
        await self.grpc.start()
        await self.tell(serving=self._serves_at_once)
        log.info("server_started", address=self._address)

    async def tell(self, *, serving: bool) -> None:
        """Whoever asks for its health."""
        status = health_pb2.HealthCheckResponse
        for name in ("", *self._services):
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def drain(self, seconds: float) -> None:
        """Say NOT_SERVING, refuse new calls, let running ones end within `seconds`; those that
        never would end now."""
        await self.tell(serving=False)
        self._stopping.set()
        await self.grpc.stop(seconds)
        log.info("server_drained")


def stop_signal() -> asyncio.Event:
    """Set when the process is asked to end."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event


async def run_until_stopped(server: Server, *, drain_seconds: float) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stopped = stop_signal()
    await server.start()
    await stopped.wait()
    await server.drain(drain_seconds)


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a process to its end; an error at start is one line and exit code 1."""

    async def guarded() -> None:
        await main()

    try:
        asyncio.run(guarded())
    except OSError as error:
        log.error("start_failed", error=str(error))
        raise SystemExit(1) from error
