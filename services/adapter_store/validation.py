"""Adapter weights at the door: everything that is wrong with them, or their canonical form."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import safetensors

from services.adapter_store.canonical import (
    ELEMENT_BYTES,
    MOST_HEADER_BYTES,
    CanonicalAdapter,
    RawTensor,
    canonical,
)
from services.adapter_store.peft import PeftConfig
from services.core.base_model import BaseModel, Module
from services.core.errors import FieldViolation, InvalidAdapter

MOST_VIOLATIONS = 100

_KEY = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"BZh", b"\x1f\x8b")
WEIGHTS = "adapter_model.safetensors"


@dataclass(slots=True)
class _Pair:
    a: RawTensor | None = None
    b: RawTensor | None = None


def validate(
    data: bytes, config: PeftConfig, base: BaseModel, *, max_rank: int
) -> CanonicalAdapter:
    """Raises InvalidAdapter with everything that was found."""
    tensors = read_tensors(data)
    modules = {module.path: module for module in base.modules}
    wrong: list[FieldViolation] = []
    pairs = _pairs(tensors, modules, wrong)
    for path in modules:
        if config.selects(path) and path not in pairs:
            wrong.append(FieldViolation(path, "target_modules selects it, the weights lack it"))
    for path, pair in pairs.items():
        wrong += _problems(modules[path], pair, config, max_rank)
    if not pairs and not wrong:
        wrong.append(FieldViolation(WEIGHTS, "holds no adapter weights"))
    if wrong:
        raise InvalidAdapter(wrong[:MOST_VIOLATIONS])
    named: dict[str, RawTensor] = {}
    for path, pair in pairs.items():
        assert pair.a is not None
        assert pair.b is not None
        named[f"{modules[path].site}.A"] = pair.a
        named[f"{modules[path].site}.B"] = pair.b
    scaling = {modules[path].site: config.scaling(path) for path in pairs}
    return canonical(named, scaling, base.fingerprint)


def read_tensors(data: bytes) -> dict[str, RawTensor]:
    """Raises InvalidAdapter for anything but a whole safetensors file; never unpickles."""
    if data.startswith(_PICKLES):
        raise _refused("only safetensors files are taken; a pickle or an archive is never opened")
    if len(data) < 8 or int.from_bytes(data[:8], "little") > min(len(data), MOST_HEADER_BYTES):
        raise _refused("is not a safetensors file, or is truncated")
    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except (safetensors.SafetensorError, ValueError) as error:
        raise _refused(f"is not a good safetensors file: {error}") from error
    return {
        name: RawTensor(entry["dtype"], tuple(entry["shape"]), bytes(entry["data"]))
        for name, entry in entries
    }


def _pairs(
    tensors: Mapping[str, RawTensor], modules: Mapping[str, Module], wrong: list[FieldViolation]
) -> dict[str, _Pair]:
    pairs: dict[str, _Pair] = {}
    for name, tensor in sorted(tensors.items()):
        key = _KEY.fullmatch(name)
        if key is None:
            wrong.append(FieldViolation(name, "is no LoRA tensor that would be honoured"))
        elif key["path"] not in modules:
            wrong.append(FieldViolation(name, f"the base model has no linear {key['path']}"))
        else:
            pair = pairs.setdefault(key["path"], _Pair())
            if key["side"] == "A":
                pair.a = tensor
            else:
                pair.b = tensor
    return pairs


def _problems(
    module: Module, pair: _Pair, config: PeftConfig, max_rank: int
) -> list[FieldViolation]:
    problems = []
    if not config.selects(module.path):
        problems.append("the weights have it, target_modules does not select it")
    rank = config.rank(module.path)
    if rank > max_rank:
        problems.append(f"rank {rank} is more than {max_rank}")
    wanted = {"A": (rank, module.in_features), "B": (module.out_features, rank)}
    for side, tensor in (("A", pair.a), ("B", pair.b)):
        if tensor is None:
            problems.append(f"lora_{side} is missing")
        elif tensor.dtype not in ELEMENT_BYTES:
            problems.append(f"lora_{side} is {tensor.dtype}, not F32, F16 or BF16")
        elif tensor.shape != wanted[side]:
            problems.append(
                f"lora_{side} has shape {list(tensor.shape)}, should have {list(wanted[side])}"
            )
        elif not _finite(tensor):
            problems.append(f"lora_{side} has values that are not finite")
    return [FieldViolation(module.path, problem) for problem in problems]


def _finite(tensor: RawTensor) -> bool:
    if tensor.dtype == "BF16":  # numpy has none: its exponent is all ones for infinity and NaN
        exponents = np.frombuffer(tensor.data, np.uint16) & 0x7F80
        return not bool((exponents == 0x7F80).any())
    kind = np.float32 if tensor.dtype == "F32" else np.float16
    return bool(np.isfinite(np.frombuffer(tensor.data, kind)).all())


def _refused(reason: str) -> InvalidAdapter:
    return InvalidAdapter([FieldViolation(WEIGHTS, reason)])
