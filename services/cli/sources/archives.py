"""Adapters in zip and tar archives: two files are taken out, nothing else is ever written."""

import bz2
import gzip
import lzma
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from services.cli.sending import Advance
from services.cli.sources.layout import MOST_ENTRIES, adapter_folder
from services.cli.upload import CONFIG, WEIGHTS
from services.core.errors import FailedPrecondition, ResourceExhausted

CHUNK_BYTES = 1024 * 1024
MOST_HEADER_BYTES = 2 * CHUNK_BYTES  # what describes entries, all of a zip or one of a tar

COMPRESSIONS: Mapping[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
TAR_MAGIC = b"ustar"
TAR_MAGIC_AT = 257

_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # zipfile's for an encrypted entry
    NotImplementedError,  # zipfile's for a compression it does not know
    ValueError,
    IndexError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: PurePosixPath
    size: int
    plain: bool  # a file; no link, device, folder or file with holes
    open: Callable[[], IO[bytes] | None]


def is_archive(head: bytes) -> bool:
    """By the first 512 bytes of a file."""
    return head.startswith((*ZIP_MAGICS, *COMPRESSIONS)) or _is_tar(head)


def extract(source: Path, to: Path, *, subfolder: str, most_bytes: int, advance: Advance) -> None:
    """Writes adapter_config.json and adapter_model.safetensors into the folder `to`.

    Raises NotFound, FailedPrecondition or, for more than `most_bytes`, ResourceExhausted.
    """
    try:
        _extract(source, to, subfolder, most_bytes, advance)
    except _BROKEN as error:
        raise _refused(source, error) from error
    except OSError as error:
        if error.errno is not None:  # of a disk, not of an archive
            raise
        raise _refused(source, error) from error


def _extract(source: Path, to: Path, subfolder: str, most_bytes: int, advance: Advance) -> None:
    wanted = _wanted(source, subfolder, most_bytes)
    total, done = sum(wanted.values()), 0
    if total > most_bytes:
        raise _too_large(most_bytes)
    for entry in _entries(source, most_bytes):
        if entry.path in wanted:
            with (to / entry.path.name).open("xb") as file:
                for data in _content(entry):
                    file.write(data)
                    done += len(data)
                    advance(done, total)


def _wanted(source: Path, subfolder: str, most_bytes: int) -> dict[PurePosixPath, int]:
    """Paths and sizes of the two entries. Raises NotFound or FailedPrecondition."""
    files: set[PurePosixPath] = set()
    sizes: dict[PurePosixPath, int] = {}
    wrong = []
    for entry in _entries(source, most_bytes):
        if entry.path.name in (CONFIG, WEIGHTS):
            if entry.path.is_absolute() or ".." in entry.path.parts:
                wrong.append(f"{entry.path} leads outside of the archive")
            elif not entry.plain:
                wrong.append(f"{entry.path} is a link, or no plain file")
            elif entry.path in sizes:
                wrong.append(f"{entry.path} is there twice")
            sizes[entry.path] = entry.size
        files.add(entry.path)
    if wrong:
        raise FailedPrecondition(f"{source.name}: {'; '.join(wrong[:10])}")
    folder = adapter_folder(files, source.name, subfolder)
    return {folder / name: sizes[folder / name] for name in (CONFIG, WEIGHTS)}


def _content(entry: _Entry) -> Iterator[bytes]:
    """As many bytes as the archive says, or ValueError."""
    stream = entry.open()
    assert stream is not None  # a plain file's never is
    left = entry.size
    with stream:
        while data := stream.read(CHUNK_BYTES):
            left -= len(data)
            if left < 0:
                break
            yield data
    if left:
        raise ValueError(f"{entry.path} is not of the size that the archive says")


def _entries(source: Path, most_bytes: int) -> Iterator[_Entry]:
    with source.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        found = (
            _zip_entries(file)
            if head.startswith(ZIP_MAGICS)
            else _tar_entries(file, head, most_bytes)
        )
        for count, entry in enumerate(found):
            if count == MOST_ENTRIES:
                raise ResourceExhausted(f"{source.name} holds more than {MOST_ENTRIES} entries")
            yield entry


def _zip_entries(file: IO[bytes]) -> Iterator[_Entry]:
    with zipfile.ZipFile(_Guarded(file, sys.maxsize)) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            yield _Entry(
                path=_path(info.filename),
                size=info.file_size,
                plain=kind in (0, stat.S_IFREG) and not info.is_dir(),
                open=partial(archive.open, info),
            )


def _tar_entries(file: IO[bytes], head: bytes, most_bytes: int) -> Iterator[_Entry]:
    unpack = next((u for magic, u in COMPRESSIONS.items() if head.startswith(magic)), None)
    with closing(unpack(file) if unpack else file) as stream:
        guarded: Any = _Guarded(stream, most_bytes)
        with tarfile.open(fileobj=guarded, mode="r:") as archive:
            for info in archive:
                yield _Entry(
                    path=_path(info.name),
                    size=info.size,
                    plain=info.isreg() and not info.issparse(),
                    open=partial(archive.extractfile, info),
                )
        while unpack and guarded.read(CHUNK_BYTES):
            pass  # only the end holds the checksum


class _Guarded:
    """A stream that nobody reads behind `limit`, nor much of at once.

    zipfile reads all its entries at once, and tarfile an extended header, however long it is.
    """

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self.tell, self.seekable = stream.tell, stream.seekable

    def seek(self, to: int, whence: int = 0) -> int:
        if whence == 0 and to < 0:
            raise ValueError("a part of it is missing")
        if whence == 0 and to > self._limit:
            raise _too_large(self._limit)
        return self._stream.seek(to, whence)

    def read(self, size: int = -1) -> bytes:
        most = MOST_HEADER_BYTES + 1
        data = self._stream.read(most if size < 0 else min(size, most))
        if len(data) == most:
            raise ValueError("the description of its entries is too long")
        if self._stream.tell() > self._limit:
            raise _too_large(self._limit)
        return data


def _is_tar(head: bytes) -> bool:
    return head[TAR_MAGIC_AT:].startswith(TAR_MAGIC)


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))


def _too_large(most_bytes: int) -> ResourceExhausted:
    return ResourceExhausted(f"it unpacks to more than {most_bytes} bytes; --max-bytes allows more")


def _refused(source: Path, error: BaseException) -> FailedPrecondition:
    said = str(error) or "it is cut short"
    return FailedPrecondition(f"{source.name} is not a good archive: {said}")
