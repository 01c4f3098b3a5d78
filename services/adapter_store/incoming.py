"""A blob of a folder on its way: a file that gets its key once its digest is known.

It is written past the page cache where the file system lets it be: nobody reads it soon, and it is
on the disk when its last byte comes, not some seconds later.
"""

import errno
import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from services.core.errors import ResourceExhausted

BUFFER_BYTES = 4 * 1024 * 1024  # of whole pages, as direct writes must be
_DIRECT = getattr(os, "O_DIRECT", 0)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Incoming:
    def __init__(self, folder: Path) -> None:
        """Its name is one that a sweep takes if nobody comes back to it."""
        self._path = folder / "blobs" / "incoming" / f"{secrets.token_hex(16)}#0"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = _created(self._path)
        self._buffer, self._other = (memoryview(mmap.mmap(-1, BUFFER_BYTES)) for _ in range(2))
        self._filled = 0
        self._beside = ThreadPoolExecutor(1)  # one buffer is written while the other one fills
        self._writing: Future[None] | None = None

    def write(self, piece: memoryview) -> None:
        """Raises ResourceExhausted if the disk is full."""
        while piece:
            count = min(len(piece), BUFFER_BYTES - self._filled)
            self._buffer[self._filled : self._filled + count] = piece[:count]
            self._filled += count
            piece = piece[count:]
            if self._filled == BUFFER_BYTES:
                self._flush()

    def promote(self, to: Path) -> None:
        """Durable and whole under that name, in the place of what was there."""
        self._flush()
        self._written()
        with _told():
            os.fsync(self._handle)
            to.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(to)
            sync_folders(to)

    def close(self) -> None:
        """Gone, unless it was promoted."""
        self._beside.shutdown()
        os.close(self._handle)
        self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        self._written()
        data = self._buffer[: self._filled]
        self._writing = self._beside.submit(_write, self._handle, data)
        self._buffer, self._other, self._filled = self._other, self._buffer, 0

    def _written(self) -> None:
        if self._writing is not None:
            with _told():
                self._writing.result()


def sync_folders(path: Path) -> None:
    """To the disk: a file's name in every folder on the way to it."""
    for entry in list(path.parents)[:4]:
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _created(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags | _DIRECT, 0o644)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags, 0o644)


def _write(handle: int, data: memoryview) -> None:
    if len(data) % mmap.PAGESIZE:  # the last
        _through_the_cache(handle)
    while data:
        try:
            data = data[os.write(handle, data) :]
        except OSError as error:
            if error.errno != errno.EINVAL or not fcntl.fcntl(handle, fcntl.F_GETFL) & _DIRECT:
                raise
            _through_the_cache(handle)


def _through_the_cache(handle: int) -> None:
    fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) & ~_DIRECT)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhausted("the store's disk is full; finish it again") from error
        raise
