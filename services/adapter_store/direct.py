"""Writes past the page cache, where the file system lets them be.

They need whole pages in memory, in the file and of data; what is not goes through the cache.
"""

import errno
import fcntl
import mmap
import os
from pathlib import Path

PAGE_BYTES = mmap.PAGESIZE
_DIRECT = getattr(os, "O_DIRECT", 0)


def buffer(size: int) -> memoryview:
    """Of whole pages."""
    return memoryview(mmap.mmap(-1, size))


def opened(path: Path, *, at: int = 0, past_cache: bool = True) -> int:
    """A handle that writes from byte `at` on; the file is made if there is none."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    try:
        handle = os.open(path, flags | (_DIRECT if past_cache else 0), 0o644)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        handle = os.open(path, flags, 0o644)
    os.lseek(handle, at, os.SEEK_SET)
    return handle


def write(handle: int, data: memoryview) -> None:
    """Behind what was written before."""
    if len(data) % PAGE_BYTES:  # the last
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
