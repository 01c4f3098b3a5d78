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
    finite: bool = True

    def __post_init__(self) -> None:
        self.dtype, self.shape = self.tensor.dtype, self.tensor.shape

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
    wrong: list[FieldViolation] = []
    modules = {module.path: module for module in base.modules}
    found = _by_module(read_tensors(weights), modules, wrong)
    for path in modules:
        if config.selects(path) and path not in found:
            wrong.append(FieldViolation(path, "target_modules selects it, the weights lack it"))
    for path, of_module in found.items():
        wrong += _problems(modules[path], of_module, config, max_rank)
    if not found and not wrong:
        wrong.append(FieldViolation(WEIGHTS, "holds no adapter weights"))
    if not wrong:
        pairs = {
            module.site: Pair(
                found[path].fitting["A"], found[path].fitting["B"], config.scaling(path)
            )
            for path, module in modules.items()
            if path in found
        }
        adapter = canonical(pairs, base.fingerprint, write)
    wrong += _not_finite(found, read=bool(wrong))
    if wrong:
        raise InvalidAdapter(wrong[:MOST_VIOLATIONS])
    return adapter


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
                scaled = f" once scaled by {tensor.scaling:g}" if tensor.scaling > 1 else ""
                problem = f"lora_{side} has values that are not finite{scaled}"
                problems.append(FieldViolation(path, problem))
    return problems
