"""The child process that fetches and unpacks adapters, so that the steps' process need not.

Takes (Source, Unpacker) and then digests over the socket whose number is its argument. Answers
(digest, Layout) with a file that holds the image, or (digest, ServingError). Ends when the other
end is closed.
"""

import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from services.core.errors import ServingError
from services.core.types import Digest
from services.gpu_worker.model.layout import Numbers
from services.gpu_worker.model.unpacking import Unpacker

AT_ONCE = 4
MOST_MESSAGE_BYTES = 64 * 1024  # what names an adapter; its data is in a file
FLOAT_BYTES = 4


class Source(Protocol):
    """Where adapters come from. It is passed on to processes."""

    def download(self, digest: Digest) -> Iterator[bytes]:
        """Canonical, in pieces, and perhaps damaged on its way; in any thread.

        Raises ServingError.
        """
        ...


def main(line: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    source, unpacker = pickle.loads(line.recv(MOST_MESSAGE_BYTES))
    pool = ThreadPoolExecutor(AT_ONCE)
    while digest := line.recv(MOST_MESSAGE_BYTES):
        pool.submit(_serve, line, source, unpacker, Digest(digest.decode()))
    os._exit(0)  # whatever is still under way


def _serve(line: socket.socket, source: Source, unpacker: Unpacker, digest: Digest) -> None:
    image = _FileImage(digest)
    try:
        layout = unpacker.unpack(source.download(digest), digest, image)
        socket.send_fds(line, [pickle.dumps((digest, layout))], [image.file])
    except ServingError as error:
        line.send(pickle.dumps((digest, error)))
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # the parent notices, and does it itself
    finally:
        os.close(image.file)


class _FileImage:
    """A layout.Image in a file that is only memory. To write costs less than to map it."""

    def __init__(self, digest: Digest) -> None:
        self.file = os.memfd_create(digest)
        self._elements = 0

    def allocate(self, pages: int, elements: int) -> None:
        self._elements = elements
        os.ftruncate(self.file, pages * elements * FLOAT_BYTES)

    def write(self, page: int, offset: int, values: Numbers) -> None:
        os.pwrite(self.file, values.data, (page * self._elements + offset) * FLOAT_BYTES)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        main(given)
