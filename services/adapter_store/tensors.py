"""Tensors of an uploaded safetensors file, of which only the header is ever in memory whole."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors

from services.core.errors import FieldViolation, InvalidAdapter

MOST_HEADER_BYTES = 16 * 1024 * 1024
PIECE_BYTES = 1024 * 1024
WEIGHTS = "adapter_model.safetensors"
ELEMENTS: Mapping[str, type[np.generic]] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,  # numpy has none: its bits
}

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"BZh", b"\x1f\x8b")

Rows = np.ndarray[Any, np.dtype[Any]]


class Matrix(Protocol):
    """A matrix [rows, columns] of one of ELEMENTS; dtype as safetensors names it."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def start(self) -> int:
        """Where it begins in its file."""
        ...

    def pieces(self) -> Iterator[Rows]:
        """From the first row to the last, some MiB at a time."""
        ...


@dataclass(frozen=True, slots=True)
class FileTensor:
    """One that lies in a file, from byte `start` on; only a matrix of ELEMENTS can be read."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    def pieces(self) -> Iterator[Rows]:
        rows, columns = self.shape
        kind = np.dtype(ELEMENTS[self.dtype])
        at_once = rows_at_once(columns, self.dtype)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            for first in range(0, rows, at_once):
                piece = np.empty((min(at_once, rows - first), columns), kind)
                _fill(file, piece.view(np.uint8).reshape(-1).data)
                yield piece


def read_header(path: Path) -> bytes:
    """A file's first bytes, to the end of its header, if it can be a safetensors file."""
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        is_long = len(start) < 8 or length > min(path.stat().st_size, MOST_HEADER_BYTES)
        return start + (b"" if is_long else file.read(length))


def read_tensors(path: Path) -> dict[str, FileTensor]:
    """By name. Raises InvalidAdapter for anything but a whole safetensors file; never unpickles."""
    head = read_header(path)
    start, text = head[:8], head[8:]
    if not text.startswith(b"{"):
        if start.startswith(_PICKLES):  # as a header's length may begin too
            raise _refused(
                "only safetensors files are taken; a pickle or an archive is never opened"
            )
        raise _refused("is not a safetensors file, or is truncated")
    try:
        with safetensors.safe_open(path, framework="numpy"):  # checks offsets, sizes and types
            header = json.loads(text, object_pairs_hook=_once)
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise _refused(f"is not a good safetensors file: {error}") from error
    return {
        name: FileTensor(
            path, entry["dtype"], tuple(entry["shape"]), len(head) + entry["data_offsets"][0]
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def tensors_told(head: bytes, size_bytes: int) -> dict[str, FileTensor]:
    """Those of a file of `size_bytes` that is elsewhere, by its first bytes; they can be asked for,
    not read. Raises InvalidAdapter."""
    found, at = {}, len(head)
    try:
        if int.from_bytes(head[:8], "little") != len(head) - 8:
            raise ValueError("it has another length than it says")
        header = json.loads(head[8:], object_pairs_hook=_once)
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            kind, shape = entry["dtype"], tuple(int(length) for length in entry["shape"])
            begin, end = (len(head) + int(offset) for offset in entry["data_offsets"])
            has_size = kind not in ELEMENTS or math.prod(shape) * item_bytes(kind) == end - begin
            if begin != at or end < begin or min(shape, default=0) < 0 or not has_size:
                raise ValueError(f"{name} does not lie where it should")
            found[name], at = FileTensor(Path(), kind, shape, begin), end
        if at != size_bytes:
            raise ValueError(f"its tensors end at {at}, the file at {size_bytes}")
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise _refused(f"is not a good safetensors file: {error}") from error
    return found


def item_bytes(dtype: str) -> int:
    return np.dtype(ELEMENTS[dtype]).itemsize


def rows_at_once(columns: int, dtype: str) -> int:
    """How many rows make a piece of at most PIECE_BYTES, unless one alone is larger."""
    return max(1, PIECE_BYTES // max(1, columns * item_bytes(dtype)))


def is_finite(dtype: str, piece: Rows, scaling: float = 1.0) -> bool:
    """And stays so when it is multiplied by `scaling` in float32; float16 always does."""
    # Without their signs floats are ordered as their bits are; infinity and NaN come last.
    if dtype == "F16":
        limit = 0x7BFF
    else:
        largest = np.float32(np.finfo(np.float32).max / max(1.0, scaling))
        limit = int(largest.view(np.uint32)) - (scaling > 1)
        limit >>= 16 if dtype == "BF16" else 0  # the upper half of a float32
    # The most of them as signed numbers has no sign, if any has none; as unsigned ones it has one.
    width = item_bytes(dtype)
    signed, unsigned = (piece.view(f"{sign}{width}") for sign in "iu")
    sign_bit = 1 << (8 * width - 1)
    return not piece.size or (
        int(signed.max()) <= limit and int(unsigned.max()) <= (sign_bit | limit)
    )


def _fill(file: Any, view: memoryview) -> None:
    while len(view):
        count = file.readinto(view)
        if not count:
            raise OSError("the file became shorter while it was read")
        view = view[count:]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def _refused(reason: str) -> InvalidAdapter:
    return InvalidAdapter([FieldViolation(WEIGHTS, reason)])
