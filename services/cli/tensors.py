"""safetensors files of any size: read where they lie on the disk, written from there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors import TensorSpec

ELEMENTS: Mapping[str, "np.dtype[Any]"] = {
    "F32": np.dtype(np.uint32),
    "F16": np.dtype(np.uint16),
    "BF16": np.dtype(np.uint16),
}
_TYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """dtype as safetensors names it; `bits` are its elements as unsigned integers of their size."""

    dtype: str
    bits: "np.ndarray[Any, Any]"


def read_tensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors, mapped into memory, and the metadata. Raises ValueError for a bad file."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata: dict[str, str] = file.metadata() or {}
            kinds = {name: file.get_slice(name).get_dtype() for name in file.offset_keys()}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in kinds}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path.name} is not a good safetensors file: {error}") from error
    if unknown := sorted(set(kinds.values()) - set(ELEMENTS)):
        raise ValueError(f"{path.name} holds {', '.join(unknown)}, not F32, F16 or BF16")
    sizes = {name: int(np.prod(shapes[name])) * ELEMENTS[kinds[name]].itemsize for name in kinds}
    data = np.memmap(path, np.uint8, "r", offset=path.stat().st_size - sum(sizes.values()))
    tensors, at = {}, 0
    for name, size in sizes.items():  # in the order that they lie in, without gaps
        bits = data[at : at + size].view(ELEMENTS[kinds[name]]).reshape(shapes[name])
        tensors[name] = StoredTensor(kinds[name], bits)
        at += size
    return tensors, metadata


def write_tensors(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """As PEFT would. The same tensors are always the same bytes."""
    held = {name: np.ascontiguousarray(tensor.bits) for name, tensor in sorted(tensors.items())}
    specs = {
        name: TensorSpec(
            dtype=_TYPE_NAMES[tensors[name].dtype],
            shape=list(bits.shape),
            data_ptr=bits.ctypes.data,
            data_len=bits.nbytes,
        )
        for name, bits in held.items()
    }
    safetensors.serialize_file(specs, path, {"format": "pt"})
