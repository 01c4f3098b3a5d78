"""Clients that stop in the middle, or take nothing of what they asked for: they hold nothing for
long."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from services.core.errors import Unavailable
from services.gateway import http_connections, http_server
from services.gateway.http_errors import on_http_error
from services.gateway.http_server import BodyLimit, HttpServer
from services.gateway.intake import Doorkeeper, Intake

PATIENCE_SECONDS = 10.0
POST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 8\r\n\r\n"


async def free(intake: Intake) -> None:
    """Returns when its one place is."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                with intake.place():
                    return
            except Unavailable:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[socket.socket]:
    """A client's socket, connected to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    async with HttpServer(app, address=f"{host}:{port}", drain_seconds=1.0):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, (host, port))
            yield client


async def until_closed(client: socket.socket) -> bytes:
    received = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while data := await asyncio.get_running_loop().sock_recv(client, 4096):
            received += data
    return received


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10_000
            await asyncio.sleep(0)

    await StreamingResponse(pieces())(scope, receive, send)


def reading(body_seconds: float) -> FastAPI:
    app = FastAPI()
    app.add_middleware(BodyLimit, most_bytes=100, seconds=body_seconds)
    app.add_exception_handler(HTTPException, on_http_error)

    @app.post("/")
    async def read(body: dict[str, str]) -> None: ...

    return app


@pytest.mark.parametrize("sent", [b"", b"POST / HT"])
async def test_a_head_that_does_not_come_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http_connections.Connection, "head_seconds", 0.05)
    async with served(endless) as client:
        client.send(sent)
        assert await until_closed(client) == b""


async def test_a_body_that_stops_frees_its_place() -> None:
    intake = Intake(1)
    async with served(Doorkeeper(reading(0.05), intake)) as client:
        client.send(POST + b"half")
        assert (await until_closed(client)).startswith(b"HTTP/1.1 408 ")
        await free(intake)


async def test_who_reads_nothing_over_http_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = http_connections.listener
    monkeypatch.setattr(http_server, "listener", lambda at: deaf(at, deaf_seconds=0.2))
    intake, taken = Intake(1), asyncio.Event()

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # not uvicorn's start
            taken.set()
            await endless(scope, receive, send)

    async with served(Doorkeeper(told, intake)) as client:
        client.send(POST + b"12345678")
        await taken.wait()
        await free(intake)


async def test_who_reads_nothing_over_grpc_is_given_up() -> None:
    intake, taken = Intake(1, longest_seconds=0.2), asyncio.Event()

    async def behaviour(request: bytes, context: Any) -> AsyncIterator[bytes]:
        with intake.place():
            taken.set()
            while True:
                yield b"x" * 100_000

    server = grpc.aio.server()
    handler: Any = grpc.unary_stream_rpc_method_handler(behaviour)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Deaf", {"Ask": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask: Any = channel.unary_stream("/test.Deaf/Ask")
        call = ask(b"")
        await taken.wait()
        await free(intake)
        call.cancel()
    await server.stop(0)


async def test_who_leaves_its_place_in_time_is_not_given_up() -> None:
    intake = Intake(1, longest_seconds=0.01)
    with intake.place():
        pass
    await asyncio.sleep(0.05)
