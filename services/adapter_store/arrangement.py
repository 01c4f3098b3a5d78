"""An upload in canonical form: its sender puts the bytes in order, the store only looks at them.

The store tells what to send by the file's header (`arrange`). What came is trusted for nothing: its
own header says what it holds, and must be the one that the store would write (`arranged`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from services.adapter_store.canonical import CanonicalAdapter, File, Pair, adapter_of
from services.adapter_store.peft import PeftConfig
from services.adapter_store.tensors import (
    PIECE_BYTES,
    WEIGHTS,
    FileTensor,
    Matrix,
    item_bytes,
    read_header,
    read_tensors,
    tensors_told,
)
from services.adapter_store.validation import check_told
from services.core.base_model import BaseModel
from services.core.errors import FieldViolation, InvalidAdapter
from services.core.types import Digest


@dataclass(frozen=True, slots=True)
class Part:
    """A matrix, as it lies in the file and in the upload."""

    offset: int  # in the file
    shape: tuple[int, ...]  # in the file
    dtype: str
    is_transposed: bool
    path: str
    scaling: float  # that values are to be multiplied by

    @property
    def size_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * item_bytes(self.dtype)


@dataclass(frozen=True, slots=True)
class Arrangement:
    """`head`, then the parts."""

    head: bytes
    parts: tuple[Part, ...]
    pairs: Mapping[str, Pair]

    @property
    def size_bytes(self) -> int:
        return len(self.head) + sum(part.size_bytes for part in self.parts)

    def tag(self, content_tag: str) -> str:
        """Of the upload: the same content in another order is another one."""
        return hashlib.sha256(content_tag.encode() + self.head).hexdigest()


def arrange(
    header: bytes, size_bytes: int, config: PeftConfig, base: BaseModel, *, max_rank: int
) -> Arrangement:
    """What is to be sent of a file that begins with `header`. Raises InvalidAdapter."""
    tensors = tensors_told(header, size_bytes)
    return _arrangement(check_told(tensors, config, base, max_rank=max_rank), base)


def claims_to_be_arranged(file: Path) -> bool:
    try:
        header = json.loads(read_header(file)[8:])
        return "lorikeet" in header["__metadata__"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def arranged(file: Path, config: PeftConfig, base: BaseModel, *, max_rank: int) -> Arrangement:
    """What came, if it is in canonical form but for its values. Raises InvalidAdapter."""
    paths = {module.site: module.path for module in base.modules}
    tensors = dict(_peft_names(read_tensors(file), paths))
    found = _arrangement(check_told(tensors, config, base, max_rank=max_rank), base)
    if found.head != read_header(file):
        raise InvalidAdapter([FieldViolation(WEIGHTS, "its header is not the canonical one")])
    return found


def sent_adapter(arrangement: Arrangement, digest: Digest, file: Path) -> CanonicalAdapter:
    return adapter_of(arrangement.pairs, digest, arrangement.size_bytes, _Sent(file))


@dataclass(frozen=True, slots=True)
class _Sent:
    path: Path

    def pieces(self) -> Iterator[memoryview]:
        with self.path.open("rb", buffering=0) as file:
            while data := file.read(PIECE_BYTES):
                yield memoryview(data)


def _peft_names(
    tensors: Mapping[str, FileTensor], paths: Mapping[str, str]
) -> Iterator[tuple[str, FileTensor]]:
    """As PEFT would name and shape them; what is not canonical keeps its name, and is refused."""
    for name, tensor in tensors.items():
        site, _, side = name.rpartition(".")
        if site not in paths or side not in ("A", "B"):
            yield name, tensor
            continue
        shape = tensor.shape if side == "A" else tensor.shape[::-1]
        yield (
            f"base_model.model.{paths[site]}.lora_{side}.weight",
            replace(tensor, shape=shape),
        )


def _arrangement(pairs: Mapping[str, Pair], base: BaseModel) -> Arrangement:
    paths = {module.site: module.path for module in base.modules}
    file = File.of(pairs, base.fingerprint)
    parts = []
    for name, matrix in file.matrices:
        site, _, side = name.rpartition(".")
        parts.append(_part(matrix, side, paths[site], pairs[site].scaling))
    return Arrangement(file.header, tuple(parts), pairs)


def _part(matrix: Matrix, side: str, path: str, scaling: float) -> Part:
    return Part(
        offset=matrix.start,
        shape=matrix.shape,
        dtype=matrix.dtype,
        is_transposed=side == "B",
        path=path,
        scaling=scaling if side == "B" else 1.0,
    )
