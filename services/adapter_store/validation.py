"""Adapter weights at the door: everything that is wrong with them, or their canonical form."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.adapter_store.canonical import CanonicalAdapter, Pair, Write, canonical
from services.adapter_store.peft import PeftConfig
from services.adapter_store.tensors import (
    ELEMENTS,
    WEIGHTS,
    FileTensor,
    Rows,
    is_finite,
    read_tensors,
)
from services.core.base_model import BaseModel, Module
from services.core.errors import FieldViolation, InvalidAdapter

MOST_VIOLATIONS = 100

_KEY = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")


@dataclass(slots=True)
class _Watched:
    """A tensor of which it is known, once it was read, whether all values are finite."""

    tensor: FileTensor
    scaling: float = 1.0  # that values are to be multiplied by
    dtype: str = field(init=False)
    shape: tuple[int, ...] = field(init=False)
    start: int = field(init=False)
    finite: bool = True

    def __post_init__(self) -> None:
        self.dtype, self.shape = self.tensor.dtype, self.tensor.shape
        self.start = self.tensor.start

    def pieces(self) -> Iterator[Rows]:
        for piece in self.tensor.pieces():
            self.finite = self.finite and is_finite(self.dtype, piece, self.scaling)
            yield piece


@dataclass(slots=True)
class _Found:
    """What the file has for one module: by side, those that fit, and all."""

    fitting: dict[str, _Watched] = field(default_factory=dict)
    tensors: dict[str, FileTensor] = field(default_factory=dict)


def validate(
    weights: Path,
    config: PeftConfig,
    base: BaseModel,
    *,
    max_rank: int,
    write: Write = lambda piece: None,
) -> CanonicalAdapter:
    """Reads the file once, piece by piece. Raises InvalidAdapter with everything that was found;
    what was given to `write` (see canonical) is then worth nothing."""
    found, wrong = _looked_at(read_tensors(weights), config, base, max_rank)
    if not wrong:
        adapter = canonical(_pairs(found, config, base), base.fingerprint, write)
    wrong += _not_finite(found, read=bool(wrong))
    if wrong:
        raise InvalidAdapter(wrong[:MOST_VIOLATIONS])
    return adapter


def check_told(
    tensors: Mapping[str, FileTensor], config: PeftConfig, base: BaseModel, *, max_rank: int
) -> dict[str, Pair]:
    """By site, in the order of the base model's modules. Raises InvalidAdapter with everything that
    is wrong, but for values, which are not read."""
    found, wrong = _looked_at(tensors, config, base, max_rank)
    if wrong:
        raise InvalidAdapter(wrong[:MOST_VIOLATIONS])
    return _pairs(found, config, base)


def not_finite(path: str, side: str, scaling: float) -> FieldViolation:
    scaled = f" once scaled by {scaling:g}" if scaling > 1 else ""
    return FieldViolation(path, f"lora_{side} has values that are not finite{scaled}")


def _looked_at(
    tensors: Mapping[str, FileTensor], config: PeftConfig, base: BaseModel, max_rank: int
) -> tuple[dict[str, _Found], list[FieldViolation]]:
    wrong: list[FieldViolation] = []
    modules = {module.path: module for module in base.modules}
    found = _by_module(tensors, modules, wrong)
    for path in modules:
        if config.selects(path) and path not in found:
            wrong.append(FieldViolation(path, "target_modules selects it, the weights lack it"))
    for path, of_module in found.items():
        wrong += _problems(modules[path], of_module, config, max_rank)
    if not found and not wrong:
        wrong.append(FieldViolation(WEIGHTS, "holds no adapter weights"))
    return found, wrong


def _pairs(found: Mapping[str, _Found], config: PeftConfig, base: BaseModel) -> dict[str, Pair]:
    return {
        module.site: Pair(
            found[module.path].fitting["A"],
            found[module.path].fitting["B"],
            config.scaling(module.path),
        )
        for module in base.modules
        if module.path in found
    }


def _by_module(
    tensors: Mapping[str, FileTensor], modules: Mapping[str, Module], wrong: list[FieldViolation]
) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for name, tensor in sorted(tensors.items()):
        key = _KEY.fullmatch(name)
        if key is None:
            wrong.append(FieldViolation(name, "is no LoRA tensor that would be honoured"))
        elif key["path"] not in modules:
            wrong.append(FieldViolation(name, f"the base model has no linear {key['path']}"))
        elif key["side"] in (of_module := found.setdefault(key["path"], _Found())).tensors:
            wrong.append(FieldViolation(name, "comes twice, once as the adapter called default"))
        else:
            of_module.tensors[key["side"]] = tensor
    return found


def _problems(
    module: Module, found: _Found, config: PeftConfig, max_rank: int
) -> list[FieldViolation]:
    """Of everything but the values; the tensors without any are put with those that fit."""
    problems = []
    if not config.selects(module.path):
        problems.append("the weights have it, target_modules does not select it")
    rank = config.rank(module.path)
    if rank > max_rank:
        problems.append(f"rank {rank} is more than {max_rank}")
    wanted = {"A": (rank, module.in_features), "B": (module.out_features, rank)}
    for side, shape in wanted.items():
        tensor = found.tensors.get(side)
        if tensor is None:
            problems.append(f"lora_{side} is missing")
        elif tensor.dtype not in ELEMENTS:
            problems.append(f"lora_{side} is {tensor.dtype}, not F32, F16 or BF16")
        elif tensor.shape != shape:
            problems.append(
                f"lora_{side} has shape {list(tensor.shape)}, should have {list(shape)}"
            )
        else:
            found.fitting[side] = _Watched(
                tensor, config.scaling(module.path) if side == "B" else 1.0
            )
    return [FieldViolation(module.path, problem) for problem in problems]


def _not_finite(found: Mapping[str, _Found], *, read: bool) -> list[FieldViolation]:
    """`read`: nobody has read them yet."""
    problems = []
    for path, of_module in found.items():
        for side, tensor in of_module.fitting.items():
            if read:
                all(tensor.finite for _ in tensor.pieces())
            if not tensor.finite:
                problems.append(not_finite(path, side, tensor.scaling))
    return problems
