"""Bytes of unfinished uploads: files that only grow, as long as what was acknowledged."""

import asyncio
import errno
import hashlib
import os
import zlib
from pathlib import Path

from services.adapter_store.records import Chunk, Upload
from services.core.errors import CorruptData, InvalidRequest, OffsetMismatch, ResourceExhausted

PIECE_BYTES = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Staging:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._writers: dict[str, asyncio.Lock] = {}
        self._hashed: dict[str, tuple[hashlib._Hash, int]] = {}  # of the first so many bytes

    def committed(self, upload_id: str) -> int:
        path = self._path(upload_id)
        return path.stat().st_size if path.exists() else 0

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
        path = self._path(upload.id)
        try:
            with path.open("ab") as file:
                file.write(chunk.data)
        except OSError as error:
            if path.exists():
                os.truncate(path, committed)
            if error.errno in _FULL:
                raise ResourceExhausted(
                    "the store's disk is full; the upload can be resumed"
                ) from error
            raise
        self._hash(upload.id, chunk.data, committed)
        return committed + len(chunk.data)

    def sync(self, upload_id: str) -> None:
        """What was appended survives a crash."""
        with self._path(upload_id).open("rb") as file:
            os.fsync(file.fileno())

    def complete(self, upload: Upload) -> Path:
        """The file with everything, verified. Raises InvalidRequest if it is not all there."""
        committed = self.committed(upload.id)
        if committed != upload.size_bytes:
            raise InvalidRequest.of(
                "upload_id", f"{committed} of {upload.size_bytes} bytes have arrived"
            )
        path = self._path(upload.id)
        digest, done = self._hashed.pop(upload.id, (hashlib.sha256(), 0))
        with path.open("rb") as file:
            file.seek(done)
            while data := file.read(PIECE_BYTES):
                digest.update(data)
        if digest.hexdigest() != upload.sha256:
            raise CorruptData("the bytes are not what their SHA-256 says; start the upload again")
        return path

    def held(self) -> list[str]:
        """Ids of the uploads that have bytes here."""
        return [path.stem for path in self._folder.glob("*.part")]

    def discard(self, upload_id: str) -> None:
        self._path(upload_id).unlink(missing_ok=True)
        self._writers.pop(upload_id, None)
        self._hashed.pop(upload_id, None)

    def _hash(self, upload_id: str, data: bytes, start: int) -> None:
        """What a restart forgot is hashed at the end."""
        digest, done = self._hashed.setdefault(upload_id, (hashlib.sha256(), 0))
        if done == start:
            digest.update(data)
            self._hashed[upload_id] = digest, start + len(data)

    def _path(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.part"
