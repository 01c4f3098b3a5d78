"""A validated adapter as the bytes that workers load; the same adapter is always the same bytes.

A safetensors file: "{site}.A" [rank, in] and "{site}.B" [rank, out], which is PEFT's transposed, in
their original type, and one metadata entry, "lorikeet": compact JSON with base_fingerprint, format
and scaling by site. Its tensors lie in the order in which a worker lays them out, module by module,
so that a load reads from the first byte to the last (those of wider types first, if they differ).
In format 1 B was as PEFT has it.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from services.adapter_store.tensors import ELEMENTS, Matrix, Rows, item_bytes, rows_at_once
from services.core.types import Digest, Fingerprint

FORMAT = 2
HASHED_LATE = 4  # pieces that may wait for their hash while others are made

Write = Callable[[memoryview], object]


@dataclass(frozen=True, slots=True)
class Pair:
    """One module's factors as PEFT has them: A [rank, in], B [out, rank]."""

    a: Matrix
    b: Matrix
    scaling: float


class Pieces(Protocol):
    def pieces(self) -> Iterator[memoryview]: ...


@dataclass(frozen=True, slots=True)
class CanonicalAdapter:
    digest: Digest
    ranks: Mapping[str, int]  # by site
    parameter_count: int
    size_bytes: int
    _file: "Pieces"

    def pieces(self) -> Iterator[memoryview]:
        """The file's bytes, some MiB at a time; they are read anew from where the pairs are."""
        return self._file.pieces()


def canonical(
    pairs: Mapping[str, Pair], base: Fingerprint, write: Write = lambda piece: None
) -> CanonicalAdapter:
    """`pairs` by site, in the order of the base model's modules. Reads every number once, and gives
    the bytes to `write`, which are then the digest's."""
    file = File.of(pairs, base)
    digest, size = hashlib.sha256(), 0
    hashing: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as beside:  # a piece is hashed while the next ones are made
        for piece in file.pieces():
            if len(hashing) == HASHED_LATE:
                hashing.popleft().result()
            hashing.append(beside.submit(digest.update, piece))
            write(piece)
            size += len(piece)
    return adapter_of(pairs, Digest(digest.hexdigest()), size, file)


def adapter_of(
    pairs: Mapping[str, Pair], digest: Digest, size: int, file: Pieces
) -> CanonicalAdapter:
    return CanonicalAdapter(
        digest=digest,
        ranks={site: pair.a.shape[0] for site, pair in pairs.items()},
        parameter_count=sum(_elements(m) for pair in pairs.values() for m in (pair.a, pair.b)),
        size_bytes=size,
        _file=file,
    )


@dataclass(frozen=True, slots=True)
class File:
    """The form itself: its first bytes, and what follows them."""

    header: bytes
    matrices: tuple[tuple[str, Matrix], ...]  # in the order of the data

    @classmethod
    def of(cls, pairs: Mapping[str, Pair], base: Fingerprint) -> "File":
        named = [
            (f"{site}.{side}", matrix)
            for site, pair in pairs.items()
            for side, matrix in (("A", pair.a), ("B", pair.b))
        ]
        named.sort(key=lambda entry: -item_bytes(entry[1].dtype))  # stable; keeps numbers aligned
        scaling = {site: pair.scaling for site, pair in sorted(pairs.items())}
        facts = {"base_fingerprint": base, "format": FORMAT, "scaling": scaling}
        header: dict[str, Any] = {"__metadata__": {"lorikeet": _compact(facts)}}
        at = 0
        for name, matrix in named:
            end = at + _elements(matrix) * item_bytes(matrix.dtype)
            shape = matrix.shape if name.endswith(".A") else matrix.shape[::-1]
            header[name] = {"dtype": matrix.dtype, "shape": shape, "data_offsets": (at, end)}
            at = end
        text = _compact(header).encode()
        text += b" " * (-len(text) % 8)
        return cls(len(text).to_bytes(8, "little") + text, tuple(named))

    def pieces(self) -> Iterator[memoryview]:
        yield memoryview(self.header)
        sizes = (_elements(matrix) * item_bytes(matrix.dtype) for _, matrix in self.matrices)
        held = np.empty(max(sizes, default=0), np.uint8)  # for one matrix at a time
        for name, matrix in self.matrices:
            pieces = matrix.pieces() if name.endswith(".A") else _turned(matrix, held)
            yield from (piece.view(np.uint8).reshape(-1).data for piece in pieces)


def _turned(matrix: Matrix, held: Rows) -> Iterator[Rows]:
    """The transposed matrix, made in `held`."""
    rows, columns = matrix.shape
    whole = held[: _elements(matrix) * item_bytes(matrix.dtype)]
    turned = whole.view(ELEMENTS[matrix.dtype]).reshape(columns, rows)
    at = 0
    for piece in matrix.pieces():
        turned[:, at : at + len(piece)] = piece.T
        at += len(piece)
    at_once = rows_at_once(rows, matrix.dtype)
    for first in range(0, columns, at_once):
        yield turned[first : first + at_once].copy()


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _elements(matrix: Matrix) -> int:
    return matrix.shape[0] * matrix.shape[1]
