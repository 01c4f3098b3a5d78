"""Bytes from a line to a file: what came is written, and looked at, while more comes."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from services.adapter_store import direct
from services.adapter_store.arrival import Arrival

BUFFER_BYTES = 1024 * 1024  # of whole pages
LATE = 4  # buffers that may wait to be written and looked at while another one fills

ReadInto = Callable[[memoryview], int]


class Growing:
    """A file that is written at its end; a failed write leaves it as it was."""

    def __init__(self, path: Path, size: int, *, past_cache: bool) -> None:
        self._path = path
        self._past_cache = past_cache
        self._is_direct = False
        self._handle: int | None = None
        self._has_failed = False
        self.size = size

    def add(self, data: memoryview) -> None:
        """Nothing any more once that failed, as a part would then lack."""
        if self._has_failed:
            return
        try:
            if self._handle is None:
                self._open()
            assert self._handle is not None
            direct.write(self._handle, data)
        except OSError:
            self._has_failed = True
            if self._path.exists():
                os.truncate(self._path, self.size)
            raise
        self.size += len(data)
        if self._past_cache and (not self._is_direct or self.size % direct.PAGE_BYTES):
            self.close()  # the next one may go otherwise

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _open(self) -> None:
        self._is_direct = self._past_cache and self.size % direct.PAGE_BYTES == 0
        self._handle = direct.opened(self._path, at=self.size, past_cache=self._is_direct)


@contextmanager
def writing(path: Path, size: int, *, past_cache: bool) -> Iterator[Growing]:
    file = Growing(path, size, past_cache=past_cache)
    try:
        yield file
    finally:
        file.close()


def received(file: Growing, arrival: Arrival, start: int, length: int, read: ReadInto) -> int:
    """How much came of `length` bytes that follow `start`. Raises OSError if they cannot stay."""
    buffers = [direct.buffer(BUFFER_BYTES) for _ in range(LATE + 1)]
    late: deque[tuple[Future[None], Future[None]]] = deque()
    done = 0
    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(1) as looker:
        while done < length:
            if len(late) > LATE - 1:
                _ended(late.popleft())
            wanted = min(length - done, BUFFER_BYTES - (start + done) % direct.PAGE_BYTES)
            buffer = buffers[0][:wanted]
            buffers.append(buffers.pop(0))
            data = buffer[: _fill(buffer, read)]
            written = writer.submit(file.add, data)
            late.append((written, looker.submit(arrival.take, data, start + done)))
            done += len(data)
            if len(data) < len(buffer):
                break
        while late:
            _ended(late.popleft())
    return done


def _ended(work: tuple[Future[None], Future[None]]) -> None:
    for each in work:
        each.result()


def _fill(buffer: memoryview, read: ReadInto) -> int:
    """How much of it could be filled; less than all only at the end."""
    done = 0
    while done < len(buffer):
        try:
            count = read(buffer[done:])
        except OSError:  # cut off: what came counts
            break
        if not count:
            break
        done += count
    return done
