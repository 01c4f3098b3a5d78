"""A relay that counts what goes through it, whatever it is and however it is encrypted."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PIECE = 1 << 16


class CountingRelay:
    """`up`: bytes to the server that it stands before; `down`: from it."""

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.up = 0
        self.down = 0
        self._counting = threading.Lock()

    def serve(self) -> None:
        """Until it is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _join(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            answers = threading.Thread(target=self._carry, args=(server, client, "down"))
            answers.start()
            self._carry(client, server, "up")
            answers.join()

    def _carry(self, source: socket.socket, to: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                with self._counting:
                    setattr(self, way, getattr(self, way) + len(piece))
                to.sendall(piece)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)


@contextmanager
def counting_relay(server: str) -> Iterator[CountingRelay]:
    """Before a server that may not be there yet."""
    made = CountingRelay(server)
    thread = threading.Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join()
