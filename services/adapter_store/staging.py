"""Bytes of unfinished uploads: files that only grow, as long as what was acknowledged."""

import asyncio
import errno
import os
import zlib
from pathlib import Path

from services.adapter_store.arrangement import Arrangement
from services.adapter_store.arrival import Arrival
from services.adapter_store.receiving import ReadInto, received, writing
from services.adapter_store.records import Chunk, Upload
from services.core.errors import CorruptData, InvalidRequest, OffsetMismatch, ResourceExhausted

PIECE_BYTES = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Staging:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._writers: dict[str, asyncio.Lock] = {}
        self._arrivals: dict[str, Arrival] = {}
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
        arrival = self._arrivals.setdefault(upload.id, Arrival())
        arrival.take(memoryview(chunk.data), committed)
        return committed + len(chunk.data)

    def expect(self, upload_id: str, arrangement: Arrangement) -> None:
        """It will come so: it is looked at as it comes, and kept where nobody reads it again."""
        known = self._arrivals.get(upload_id, Arrival()).arrangement
        if known is None or known.head != arrangement.head:
            self._arrivals[upload_id] = Arrival(arrangement)

    def receive(self, upload: Upload, length: int, read: ReadInto) -> int:
        """Of `length` bytes those that came before `read` had no more, or raised: they stay."""
        committed = self.committed(upload.id)
        if committed + length > upload.size_bytes:
            raise InvalidRequest.of("length", f"more than the declared {upload.size_bytes} bytes")
        arrival = self._arrivals.setdefault(upload.id, Arrival())
        past_cache = arrival.arrangement is not None
        try:
            with writing(self._path(upload.id), committed, past_cache=past_cache) as file:
                return received(file, arrival, committed, length, read)
        except OSError as error:
            self._arrivals.pop(upload.id, None)  # it may know of more than is there
            raise _told(error) from error

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

    def verify(
        self, upload: Upload, sha256: str, arrangement: Arrangement | None = None
    ) -> Arrival:
        """What is known of the whole, of its values too if it is arranged. Raises CorruptData."""
        arrival = self._arrivals.pop(upload.id, Arrival())
        if arrangement is not None and not _is_of(arrival, arrangement):
            arrival = Arrival(arrangement)
        with self._path(upload.id).open("rb") as file:
            file.seek(arrival.done)
            while data := file.read(PIECE_BYTES):
                arrival.take(memoryview(data), arrival.done)
        if arrival.hexdigest() != sha256:
            raise CorruptData("the bytes are not what their SHA-256 says; start the upload again")
        return arrival

    def held(self) -> list[str]:
        """Ids of the uploads that have bytes here."""
        return [path.stem for path in self._folder.glob("*.part")]

    def discard(self, upload_id: str) -> None:
        self._path(upload_id).unlink(missing_ok=True)
        self._writers.pop(upload_id, None)
        self._arrivals.pop(upload_id, None)
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
            raise _told(error) from error

    def _path(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.part"


def _is_of(arrival: Arrival, arrangement: Arrangement) -> bool:
    return arrival.arrangement is not None and arrival.arrangement.head == arrangement.head


def _told(error: OSError) -> Exception:
    if error.errno in _FULL:
        return ResourceExhausted("the store's disk is full; the upload can be resumed")
    return error
