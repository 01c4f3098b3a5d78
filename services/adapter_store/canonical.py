"""A validated adapter as the bytes that workers load; the same adapter is always the same bytes.

A safetensors file: "{site}.A" [rank, in] and "{site}.B" [out, rank] in their original type, and
one metadata entry, "lorikeet": compact JSON with base_fingerprint, format and scaling by site.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import safetensors
from safetensors import TensorSpec

from services.core.types import Digest, Fingerprint

FORMAT = 1
MOST_HEADER_BYTES = 16 * 1024 * 1024
ELEMENT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_TYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class RawTensor:
    """dtype as safetensors names it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class CanonicalAdapter:
    data: bytes
    digest: Digest
    ranks: Mapping[str, int]  # by site
    parameter_count: int


def canonical(
    tensors: Mapping[str, RawTensor], scaling: Mapping[str, float], base: Fingerprint
) -> CanonicalAdapter:
    """`tensors` under their canonical names."""
    facts = {"base_fingerprint": base, "format": FORMAT, "scaling": dict(sorted(scaling.items()))}
    held = {name: np.frombuffer(tensor.data, np.uint8) for name, tensor in tensors.items()}
    specs = {
        name: TensorSpec(
            dtype=_TYPE_NAMES[tensors[name].dtype],
            shape=list(tensors[name].shape),
            data_ptr=bytes_.ctypes.data,
            data_len=bytes_.size,
        )
        for name, bytes_ in sorted(held.items())
    }
    metadata = {"lorikeet": json.dumps(facts, separators=(",", ":"), sort_keys=True)}
    data = safetensors.serialize(specs, metadata)
    return CanonicalAdapter(
        data=data,
        digest=Digest(hashlib.sha256(data).hexdigest()),
        ranks={
            name.removesuffix(".A"): tensor.shape[0]
            for name, tensor in sorted(tensors.items())
            if name.endswith(".A")
        },
        parameter_count=sum(t.shape[0] * t.shape[1] for t in tensors.values()),
    )
