"""Bytes of unfinished uploads: files that only grow, as long as what was acknowledged."""

import asyncio
import errno
import hashlib
import os
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from services.adapter_store.records import Chunk, Upload
from services.core.errors import CorruptData, InvalidRequest, OffsetMismatch, ResourceExhausted

PIECE_BYTES = 1024 * 1024
HASHED_LATE = 3  # pieces that may wait for their hash while others arrive
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

ReadInto = Callable[[memoryview], int]


class Staging:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._writers: dict[str, asyncio.Lock] = {}
        self._hashed: dict[str, tuple[hashlib._Hash, int]] = {}  # of the first so many bytes
        self._synced: dict[str, int] = {}  # how many bytes a crash of the machine leaves

    def committed(self, upload_id: str) -> int:
        path = self._path(upload_id)
        return path.stat().st_size if path.exists() else 0

    def durable(self, upload_id: str) -> int:
        """The committed size, once that much survives a crash of the machine."""
        committed = self.committed(upload_id)
        if committed != self._synced.get(upload_id, 0):
            self.sync(upload_id)
        return committed

    def writer(self, upload_id: str) -> asyncio.Lock:
        """Held while an upload is written or finished: one at a time."""
        return self._writers.setdefault(upload_id, asyncio.Lock())

    def append(self, upload: Upload, chunk: Chunk) -> int:
        """The new committed size. Leaves the file as it was if anything is wrong."""
        committed = self.committed(upload.id)
        if chunk.offset != committed:
            raise OffsetMismatch(committed, chunk.offset)
        if len(chunk.data) > upload.chunk_bytes:
            raise InvalidRequest.of("data", f"at most {upload.chunk_bytes} bytes a chunk")
        if committed + len(chunk.data) > upload.size_bytes:
            raise InvalidRequest.of("data", f"more than the declared {upload.size_bytes} bytes")
        if zlib.crc32(chunk.data) != chunk.crc32:
            raise CorruptData(f"the chunk at {chunk.offset} was damaged on its way")
        self._add(upload.id, chunk.data, committed)
        self._hash(upload.id, chunk.data, committed)
        return committed + len(chunk.data)

    def receive(self, upload: Upload, length: int, read: ReadInto) -> int:
        """Of `length` bytes those that came before `read` had no more, or raised: they stay."""
        committed, done = self.committed(upload.id), 0
        if committed + length > upload.size_bytes:
            raise InvalidRequest.of("length", f"more than the declared {upload.size_bytes} bytes")
        buffers = [memoryview(bytearray(PIECE_BYTES)) for _ in range(HASHED_LATE + 1)]
        hashing: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1) as beside:  # a piece is hashed while the next ones arrive
            while done < length:
                if len(hashing) > HASHED_LATE:
                    hashing.popleft().result()
                buffer = buffers[0][: length - done]
                buffers.append(buffers.pop(0))
                data = buffer[: _fill(buffer, read)]
                self._add(upload.id, data, committed + done)
                hashing.append(beside.submit(self._hash, upload.id, data, committed + done))
                done += len(data)
                if len(data) < len(buffer):
                    break
        return done

    async def take(self, upload: Upload, data: memoryview) -> None:
        """What follows, from elsewhere in the store."""
        await asyncio.to_thread(self._add, upload.id, data, self.committed(upload.id))

    def sync(self, upload_id: str) -> None:
        """What was appended survives a crash."""
        with self._path(upload_id).open("rb") as file:
            committed = os.fstat(file.fileno()).st_size
            os.fsync(file.fileno())
        self._synced[upload_id] = committed

    def whole(self, upload: Upload) -> Path:
        """The file. Raises InvalidRequest if not everything is there."""
        committed = self.committed(upload.id)
        if committed != upload.size_bytes:
            raise InvalidRequest.of(
                "upload_id", f"{committed} of {upload.size_bytes} bytes have arrived"
            )
        return self._path(upload.id)

    def verify(self, upload: Upload, sha256: str) -> None:
        """Raises CorruptData."""
        digest, done = self._hashed.pop(upload.id, (hashlib.sha256(), 0))
        with self._path(upload.id).open("rb") as file:
            file.seek(done)
            while data := file.read(PIECE_BYTES):
                digest.update(data)
        if digest.hexdigest() != sha256:
            raise CorruptData("the bytes are not what their SHA-256 says; start the upload again")

    def held(self) -> list[str]:
        """Ids of the uploads that have bytes here."""
        return [path.stem for path in self._folder.glob("*.part")]

    def discard(self, upload_id: str) -> None:
        self._path(upload_id).unlink(missing_ok=True)
        self._writers.pop(upload_id, None)
        self._hashed.pop(upload_id, None)
        self._synced.pop(upload_id, None)

    def _add(self, upload_id: str, data: bytes | memoryview, committed: int) -> None:
        """All of it, or the file stays as it was."""
        path = self._path(upload_id)
        try:
            with path.open("ab") as file:
                file.write(data)
        except OSError as error:
            if path.exists():
                os.truncate(path, committed)
            if error.errno in _FULL:
                raise ResourceExhausted(
                    "the store's disk is full; the upload can be resumed"
                ) from error
            raise

    def _hash(self, upload_id: str, data: bytes | memoryview, start: int) -> None:
        """What a restart forgot is hashed at the end."""
        digest, done = self._hashed.setdefault(upload_id, (hashlib.sha256(), 0))
        if done == start:
            digest.update(data)
            self._hashed[upload_id] = digest, start + len(data)

    def _path(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.part"


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
