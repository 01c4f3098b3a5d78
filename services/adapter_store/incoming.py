"""A blob of a folder on its way: a file that gets its key once its digest is known."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.core.errors import ResourceExhausted

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Incoming:
    def __init__(self, folder: Path) -> None:
        """Its name is one that a sweep takes if nobody comes back to it."""
        self._path = folder / "blobs" / "incoming" / f"{secrets.token_hex(16)}#0"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("xb", buffering=0)

    def write(self, piece: memoryview) -> None:
        """Raises ResourceExhausted if the disk is full."""
        with _told():
            while piece:
                piece = piece[self._file.write(piece) :]

    def promote(self, to: Path) -> None:
        """Durable and whole under that name, in the place of what was there."""
        with _told():
            os.fsync(self._file.fileno())
            to.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(to)
            sync_folders(to)

    def close(self) -> None:
        """Gone, unless it was promoted."""
        self._file.close()
        self._path.unlink(missing_ok=True)


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
