"""Serves an ASGI application beside the gRPC server, and ends with it."""

import asyncio
import contextlib
from collections.abc import Iterator
from types import TracebackType

import uvicorn
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.http_connections import Connection, listener

BODY_SECONDS = 30.0  # for the next part of a body


class BodyLimit:
    """Refuses bodies that are longer than they may be, however they are sent, and those that stop
    in the middle."""

    def __init__(self, app: ASGIApp, most_bytes: int, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0
        seconds: float | None = self._seconds

        async def counted() -> Message:
            nonlocal received, seconds
            try:
                async with asyncio.timeout(seconds):
                    message = await receive()
            except TimeoutError as error:
                why, headers = "the rest of the body did not come", {"connection": "close"}
                raise HTTPException(408, why, headers) from error
            if not message.get("more_body", False):
                seconds = None  # then the client's going is waited for
            received += len(message.get("body", b""))
            if received > self._most_bytes:
                raise HTTPException(413, f"the body may have at most {self._most_bytes} bytes")
            return message

        await self._app(scope, counted, send)


class HttpServer:
    """uvicorn in this process's event loop; the process keeps its own signal handlers."""

    def __init__(self, app: ASGIApp, *, address: str, drain_seconds: float) -> None:
        self._address = address
        self._server = _Quiet(
            uvicorn.Config(
                app,
                http=Connection,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=max(1, int(drain_seconds)),
                timeout_keep_alive=75,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "HttpServer":
        sockets = [listener(self._address)]
        self._serving = asyncio.create_task(self._server.serve(sockets=sockets))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.drain()

    async def drain(self) -> None:
        """Take nothing new, let running requests end."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
