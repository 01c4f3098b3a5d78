"""The store's own door: HTTP/1.1 that takes PUTs of what signed URLs allow, and nothing else.

Its threads move bytes from sockets to files; what they may do is asked of the event loop.
"""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any, TypeVar

import structlog

from services.adapter_store.receiving import ReadInto
from services.adapter_store.records import Upload
from services.adapter_store.signing import Grant, Signer
from services.adapter_store.staging import Staging
from services.adapter_store.uploads import Uploads
from services.core.errors import (
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    OffsetMismatch,
    PermissionDenied,
    ResourceExhausted,
    ServingError,
)

log = structlog.get_logger()

MOST_CONNECTIONS = 8  # each holds some MiB; whom it refuses can send by gRPC
HEAD_SECONDS = 10.0
SILENT_SECONDS = 60.0
POLL_SECONDS = 0.1  # how long the end waits at most for whoever accepts

_STATUSES: dict[type[ServingError], HTTPStatus] = {
    PermissionDenied: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    FailedPrecondition: HTTPStatus.CONFLICT,
    OffsetMismatch: HTTPStatus.CONFLICT,
    InvalidRequest: HTTPStatus.BAD_REQUEST,
    ResourceExhausted: HTTPStatus.INSUFFICIENT_STORAGE,
}

T = TypeVar("T")


class Receiver(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        address: str,
        uploads: Uploads,
        *,
        staging: Staging,
        signer: Signer,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Within a running event loop. Raises OSError if the address is taken."""
        host, _, port = address.rpartition(":")
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host.strip("[]"), int(port)), _Handler)
        self._loop = asyncio.get_running_loop()
        self._uploads = uploads
        self._tls = tls
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self.staging = staging
        self.signer = signer

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._tls is not None:  # shakes hands when it is first read, in its own thread
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is a place for it."""
        if not self._places.acquire(blocking=False):
            return False
        self._open.add(request)
        return True

    def shutdown_request(self, request: Any) -> None:
        if request in self._open:
            self._open.remove(request)
            self._places.release()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("connection_broke", exc_info=True)

    def admit(self, grant: Grant) -> Upload:
        return self._ask(self._uploads.admit(grant))

    def release(self, upload: Upload) -> None:
        self._ask(self._uploads.release(upload))

    def end(self) -> None:
        """What is being received ends with what has come; returns when nobody is connected."""
        self.shutdown()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _ in range(MOST_CONNECTIONS):
            self._places.acquire()
        self.server_close()

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"
    timeout = HEAD_SECONDS
    rbufsize = 0  # a body is read past all buffers
    server_version, sys_version = "lorikeet", ""

    def do_PUT(self) -> None:
        self.close_connection = True
        try:
            grant = self.server.signer.grant(self.path)
            if self.headers.get("Content-Length") != str(grant.length):
                raise InvalidRequest.of("Content-Length", f"must be {grant.length}")
            upload = self.server.admit(grant)
            try:
                read = _reader(self.connection)
                done = self.server.staging.receive(upload, grant.length, read)
            finally:
                self.server.release(upload)
        except ServingError as error:
            self._answer(_status(error), error.message)
            return
        if done == grant.length:
            self.close_connection = False
            self.connection.settimeout(HEAD_SECONDS)
            self._answer(HTTPStatus.NO_CONTENT)

    def _answer(self, status: HTTPStatus, message: str = "") -> None:
        self.send_response(status)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(message.encode())))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(message.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """URLs are secrets."""


def _reader(connection: socket.socket) -> ReadInto:
    """Waits in the kernel for a whole buffer, where nothing needs to be deciphered first."""
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(SILENT_SECONDS)
        return connection.recv_into
    connection.settimeout(None)
    silent = struct.pack("ll", int(SILENT_SECONDS), 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silent)
    return lambda view: connection.recv_into(view, 0, socket.MSG_WAITALL)


def _status(error: ServingError) -> HTTPStatus:
    kinds = (_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    return next(kinds, HTTPStatus.INTERNAL_SERVER_ERROR)


def tls_of(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Raises OSError for files that are none."""
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[None]:
    """Takes PUTs meanwhile; then cuts those that are under way."""
    accepting = threading.Thread(target=receiver.serve_forever, args=(POLL_SECONDS,), daemon=True)
    accepting.start()
    try:
        yield
    finally:
        await asyncio.to_thread(receiver.end)
