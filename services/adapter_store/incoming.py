"""A blob of a folder on its way: a file that gets its key once its digest is known.

It is written past the page cache where the file system lets it be: nobody reads it soon, and it is
on the disk when its last byte comes, not some seconds later.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from services.adapter_store import direct
from services.core.errors import ResourceExhausted

BUFFER_BYTES = 4 * 1024 * 1024  # of whole pages, as direct writes must be
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)


class Incoming:
    def __init__(self, folder: Path) -> None:
        """Its name is one that a sweep takes if nobody comes back to it."""
        self._path = _new_path(folder)
        self._handle = direct.opened(self._path)
        self._buffer, self._other = (direct.buffer(BUFFER_BYTES) for _ in range(2))
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
        self._writing = self._beside.submit(direct.write, self._handle, data)
        self._buffer, self._other, self._filled = self._other, self._buffer, 0

    def _written(self) -> None:
        if self._writing is not None:
            with _told():
                self._writing.result()


class Linked:
    """A blob that is whole already, in a file that stays as it is: it gets a second name, or is
    copied where a file can have only one."""

    def __init__(self, folder: Path, file: Path) -> None:
        self._path = _new_path(folder)
        self._file = file

    def promote(self, to: Path) -> None:
        """As Incoming.promote."""
        with _told():
            os.utime(self._file)  # a sweep leaves what is new
            try:
                self._path.hardlink_to(self._file)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                shutil.copyfile(self._file, self._path)
            _sync_file(self._path)
            to.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(to)
            sync_folders(to)

    def close(self) -> None:
        """As Incoming.close; the name is still there where both were of one file, too."""
        self._path.unlink(missing_ok=True)


def _new_path(folder: Path) -> Path:
    path = folder / "blobs" / "incoming" / f"{secrets.token_hex(16)}#0"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folders(path: Path) -> None:
    """To the disk: a file's name in every folder on the way to it."""
    for entry in list(path.parents)[:4]:
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhausted("the store's disk is full; finish it again") from error
        raise
