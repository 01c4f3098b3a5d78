"""Connections over HTTP whose other side has gone without a word, or sends and reads no more."""

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0
"""For the rest of a request's head, once something of it came, or of the first since its connection
did."""
DEAF_SECONDS = 120
"""For a client to take anything of what it is sent."""
PROBE_SECONDS, PROBES = 30, 4  # whether who says nothing is still there


def listener(address: str, *, deaf_seconds: float = DEAF_SECONDS) -> socket.socket:
    """Of its connections the kernel ends those whose client is gone, or does not read.

    Raises OSError if the address is taken.
    """
    host, _, port = address.rpartition(":")
    found = socket.create_server((host.strip("[]"), int(port)), backlog=1024)
    found.setblocking(False)
    for level, option, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", PROBE_SECONDS),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", PROBE_SECONDS),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", PROBES),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", round(deaf_seconds * 1000)),
    ):
        if hasattr(socket, option):  # not everywhere; connections have what their listener has
            found.setsockopt(level, getattr(socket, option), value)
    return found


class Connection(H11Protocol):
    """uvicorn's, but it does not wait for ever for a request to begin or for the rest of its head.
    The time between requests is uvicorn's own affair."""

    head_seconds = HEAD_SECONDS
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(self.head_seconds, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        has_head = self.cycle is not None and not self.cycle.response_complete
        if has_head and self._late is not None:
            self._late.cancel()
            self._late = None
        elif not has_head and self._late is None:
            self._late = self.loop.call_later(self.head_seconds, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)
