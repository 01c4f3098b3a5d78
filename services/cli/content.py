"""What an upload sends: the file as it is, or what it holds as the store asks for it."""

import hashlib
import socket
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Protocol

import numpy as np

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb

PIECE_BYTES = 1024 * 1024
AHEAD = 3  # pieces that are made while one is sent
BUFFERS = AHEAD + 5  # the others are for those that wait for their hash
MOST_HEADER_BYTES = 1024 * 1024


class Content(Protocol):
    """The bytes of an upload; `sha256` is of all of them."""

    def send(self, line: socket.socket, start: int, length: int) -> None:
        """Raises OSError."""
        ...

    def read(self, start: int, length: int) -> bytes: ...
    def sha256(self) -> str: ...


class AsItIs:
    """Hashed while it is sent."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        beside = ThreadPoolExecutor(1)
        self._digest = beside.submit(sha256_of, Path(file.name))
        beside.shutdown(wait=False)

    def send(self, line: socket.socket, start: int, length: int) -> None:
        if line.sendfile(self._file, start, length) != length:
            raise OSError("the file became shorter while it was sent")

    def read(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        return self._file.read(length)

    def sha256(self) -> str:
        return self._digest.result()


@dataclass(frozen=True, slots=True)
class _Made:
    data: memoryview
    buffer: memoryview | None  # that it lies in, to be used again


class InParts:
    """Pieces are made ahead while others are sent, and hashed as they go: the hash is of the very
    bytes that were sent."""

    def __init__(self, file: BinaryIO, parts: Sequence[pb.UploadPart]) -> None:
        self._file = file
        self._parts = parts
        *self._starts, self._size = accumulate(map(_size, parts), initial=0)
        self._matrix: tuple[int, np.ndarray] | None = None  # the last that was turned
        self._digest, self._hashed = hashlib.sha256(), 0
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(memoryview(bytearray(PIECE_BYTES)))
        self._maker, self._hasher = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    def send(self, line: socket.socket, start: int, length: int) -> None:
        with closing(self._pieces(start, start + length)) as pieces:
            for piece in pieces:
                line.sendall(piece)

    def read(self, start: int, length: int) -> bytes:
        return b"".join(map(bytes, self._pieces(start, min(start + length, self._size))))

    def sha256(self) -> str:
        for _ in self._pieces(self._hashed, self._size):
            pass  # what an earlier try sent
        self._maker.shutdown()
        self._hasher.shutdown()
        return self._digest.hexdigest()

    def _pieces(self, start: int, end: int) -> Generator[memoryview, None, None]:
        """Each is good until the next."""
        making = self._made(start, end)
        ahead = deque(self._maker.submit(next, making, None) for _ in range(AHEAD))
        try:
            while made := ahead.popleft().result():
                ahead.append(self._maker.submit(next, making, None))
                hashed = self._hash(made.data, start)
                try:
                    yield made.data
                finally:
                    hashed.add_done_callback(partial(self._give_back, made))
                start += len(made.data)
        finally:
            for each in ahead:
                with suppress(OSError):
                    self._give_back(each.result())

    def _hash(self, piece: memoryview, start: int) -> Future[None]:
        following = piece[max(0, self._hashed - start) :]
        if start > self._hashed:
            following = piece[:0]
        self._hashed += len(following)
        return self._hasher.submit(self._digest.update, following)

    def _give_back(self, made: _Made | None, _: object = None) -> None:
        if made is not None and made.buffer is not None:
            self._free.put(made.buffer)

    def _made(self, start: int, end: int) -> Iterator[_Made]:
        while start < end:
            number = bisect_right(self._starts, start) - 1
            made = self._piece(number, start - self._starts[number])
            data = made.data[: end - start]
            start += len(data)
            yield _Made(data, made.buffer)

    def _piece(self, number: int, at: int) -> _Made:
        """Some bytes of a part from `at` on."""
        part = self._parts[number]
        if part.given:
            return _Made(memoryview(part.given)[at:], None)
        if part.transposed:
            return self._turned(number, at)
        buffer = self._free.get()
        data = buffer[: min(PIECE_BYTES, _size(part) - at)]
        _fill(self._file, part.offset + at, data)
        return _Made(data, buffer)

    def _turned(self, number: int, at: int) -> _Made:
        part = self._parts[number]
        column_bytes = part.rows * part.element_bytes
        first, within = divmod(at, column_bytes)
        count = min(max(1, PIECE_BYTES // column_bytes), part.columns - first)
        matrix = self._read(number)
        buffer = self._free.get() if column_bytes <= PIECE_BYTES else None
        data = (buffer or memoryview(bytearray(column_bytes)))[: count * column_bytes]
        turned = np.frombuffer(data, matrix.dtype).reshape(count, part.rows)
        turned[:] = matrix[:, first : first + count].T
        return _Made(data[within:], buffer)

    def _read(self, number: int) -> np.ndarray:
        """The whole matrix as it lies in the file."""
        if self._matrix is None or self._matrix[0] != number:
            part = self._parts[number]
            matrix = np.empty((part.rows, part.columns), f"u{part.element_bytes}")
            _fill(self._file, part.offset, matrix.view(np.uint8).reshape(-1).data)
            self._matrix = number, matrix
        return self._matrix[1]


def header_of(file: BinaryIO) -> bytes:
    """A safetensors file's, if it is not too long to be told."""
    file.seek(0)
    start = file.read(8)
    length = int.from_bytes(start, "little")
    header = file.read(length) if length <= MOST_HEADER_BYTES else b""
    return start + header if header.startswith(b"{") and len(header) == length else b""


def sha256_of(weights: Path) -> str:
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(part: pb.UploadPart) -> int:
    return len(part.given) or part.rows * part.columns * part.element_bytes


def _fill(file: BinaryIO, start: int, buffer: memoryview) -> None:
    file.seek(start)
    if file.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
        raise OSError("the file became shorter while it was sent")
