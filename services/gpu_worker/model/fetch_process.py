"""The child process that fetches and unpacks adapters, so that the steps' process need not.

Takes (Source, Unpacker) and then digests over the socket whose number is its argument. Answers
(digest, shape of the image) with a file, or (digest, ServingError). Ends when the other end is
closed.
"""

import mmap
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from services.core.errors import ServingError
from services.core.types import Digest
from services.gpu_worker.model.adapters import Unpacker
from services.gpu_worker.model.packing import Packing

AT_ONCE = 4
MOST_MESSAGE_BYTES = 64 * 1024  # what names an adapter; its data is in a file
FLOAT_BYTES = 4

Shape = tuple[int, int]  # pages, elements


class Source(Protocol):
    """Where adapters come from. It is passed on to processes."""

    def download(self, digest: Digest) -> bytes:
        """Canonical, and perhaps damaged on its way; in any thread. Raises ServingError."""
        ...


def main(line: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    source, unpacker = pickle.loads(line.recv(MOST_MESSAGE_BYTES))
    pool = ThreadPoolExecutor(AT_ONCE, initializer=torch.set_num_threads, initargs=(1,))
    while digest := line.recv(MOST_MESSAGE_BYTES):
        pool.submit(_serve, line, source, unpacker, Digest(digest.decode()))
    os._exit(0)  # whatever is still under way


def _serve(line: socket.socket, source: Source, unpacker: Unpacker, digest: Digest) -> None:
    try:
        file, shape = _fetch(source, unpacker, digest)
        socket.send_fds(line, [pickle.dumps((digest, shape))], [file])
        os.close(file)
    except ServingError as error:
        line.send(pickle.dumps((digest, error)))
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # the parent notices, and does it itself


def _fetch(source: Source, unpacker: Unpacker, digest: Digest) -> tuple[int, Shape]:
    """A file with the image, and behind it the rest of the Packing."""
    data = source.download(digest)
    file = os.memfd_create(digest)
    try:
        packing = unpacker.unpack(data, digest, _growing(file))
        rest = pickle.dumps((packing.blocks, packing.layers))
        os.pwrite(file, rest, packing.image.nbytes)
    except BaseException:
        os.close(file)
        raise
    pages, elements = packing.image.shape
    return file, (pages, elements)


def packing_in(file: int, shape: Shape) -> Packing:
    """What _fetch put there; the image stays where it is, shared."""
    image = _image_in(file, shape)
    rest = os.pread(file, os.fstat(file).st_size - image.nbytes, image.nbytes)
    blocks, layers = pickle.loads(rest)
    return Packing(image, blocks, layers)


def _growing(file: int) -> Callable[[int, int], Tensor]:
    def allocate(pages: int, elements: int) -> Tensor:
        os.ftruncate(file, pages * elements * FLOAT_BYTES)
        return _image_in(file, (pages, elements))

    return allocate


def _image_in(file: int, shape: Shape) -> Tensor:
    shared = mmap.mmap(file, shape[0] * shape[1] * FLOAT_BYTES)
    return torch.frombuffer(shared, dtype=torch.float32).view(shape)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        main(given)
