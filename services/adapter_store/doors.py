"""Where the bytes of an upload can be PUT to, past gRPC."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.adapter_store.blobs import Blobs
from services.adapter_store.records import Upload
from services.adapter_store.signing import Grant, Signer
from services.adapter_store.staging import Staging
from services.core.errors import CorruptData, InvalidRequest, NotFound

URLS_LIVE = timedelta(hours=1)
PIECE_BYTES = 64 * 1024 * 1024  # of a bucket: what a cut costs at most


@dataclass(frozen=True, slots=True)
class Piece:
    """One PUT of exactly these bytes."""

    url: str
    offset: int
    length: int


class Door:
    """None: bytes come by gRPC alone."""

    async def pieces(self, upload: Upload, expires: datetime) -> list[Piece]:
        """What lacks, in order."""
        return []

    async def fetch(self, upload: Upload) -> None:
        """What came through this door is in the staging then, as far as it goes."""

    async def discard(self, upload_id: str) -> None:
        """What came through it for this upload goes."""

    async def held(self) -> list[str]:
        """Ids of the uploads that have bytes behind it."""
        return []


class StoreDoor(Door):
    """The store's own: what comes is staged as it comes, so one PUT takes all that lacks."""

    def __init__(self, url: str, signer: Signer) -> None:
        self._url = url.rstrip("/")
        self._signer = signer

    async def pieces(self, upload: Upload, expires: datetime) -> list[Piece]:
        start, length = upload.committed_bytes, upload.size_bytes - upload.committed_bytes
        if not length:
            return []
        grant = Grant(upload.id, start, length, int(expires.timestamp()))
        return [Piece(self._url + self._signer.path(grant), start, length)]


class BucketDoor(Door):
    """A bucket's own: each piece is an object, which the store fetches when all are there.

    A URL outlives its upload there, as nobody asks us; what it is used for then is garbage.
    """

    def __init__(self, blobs: Blobs, staging: Staging) -> None:
        self._blobs = blobs
        self._staging = staging

    async def pieces(self, upload: Upload, expires: datetime) -> list[Piece]:
        there = await self._blobs.sizes(_folder(upload.id))
        lacking = {
            _key(upload.id, start): (start, length)
            for start, length in _ranges(upload.size_bytes)
            if start + length > upload.committed_bytes
            and there.get(_key(upload.id, start)) != length
        }
        urls = await self._blobs.put_urls(list(lacking), expires)
        return [
            Piece(url, start, length)
            for url, (start, length) in zip(urls, lacking.values(), strict=True)
        ]

    async def fetch(self, upload: Upload) -> None:
        """Through the staging, where nobody can change them any more when they are checked."""
        there = await self._blobs.sizes(_folder(upload.id))
        for start, length in _ranges(upload.size_bytes):
            done, key = self._staging.committed(upload.id), _key(upload.id, start)
            if done >= start + length:
                continue
            if there.get(key) != length:
                break
            try:
                async for data in self._blobs.read(key, start=done - start):
                    await self._staging.take(upload, memoryview(data))
            except (NotFound, InvalidRequest) as error:
                raise CorruptData("a piece changed while it was read; send it again") from error

    async def discard(self, upload_id: str) -> None:
        for key in await self._blobs.sizes(_folder(upload_id)):
            await self._blobs.delete(key)

    async def held(self) -> list[str]:
        return sorted({key.split("/")[1] for key in await self._blobs.sizes("staging")})


def _ranges(size: int) -> list[tuple[int, int]]:
    """(start, length) of every piece."""
    return [(start, min(PIECE_BYTES, size - start)) for start in range(0, size, PIECE_BYTES)]


def _folder(upload_id: str) -> str:
    return f"staging/{upload_id}"


def _key(upload_id: str, start: int) -> str:
    return f"{_folder(upload_id)}/{start:015}"
