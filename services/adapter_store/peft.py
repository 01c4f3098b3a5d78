"""PEFT's adapter_config.json: what it selects, ranks and scales; the only file that knows PEFT.

Follows peft 0.21: LoraConfig, check_target_module_exists, get_pattern_key, LoraLayer.update_layer.
A field that would change the forward pass and is not honoured here is refused by its name.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.adapter_store.patterns import PathMatcher
from services.core.errors import FieldViolation, InvalidAdapter

MOST_CONFIG_BYTES = 64 * 1024

# Fields that say how it was trained or found, not what it computes.
_HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "fan_in_fan_out",  # PEFT resets it for torch.nn.Linear
        "inference_mode",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "monteclora_config",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
_HONOURED = frozenset(
    {
        "alpha_pattern",
        "bias",
        "exclude_modules",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "target_modules",
        "use_rslora",
    }
)
# PEFT makes something even of an empty one: null alone is nothing.
_NOTHING_IS_NULL = frozenset(
    {"arrow_config", "kasa_config", "trainable_token_indices", "use_bdlora", "velora_config"}
)
_ORDINARY_INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """The fields that decide what an adapter computes."""

    r: int
    lora_alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    target_modules: str | tuple[str, ...]
    exclude_modules: str | tuple[str, ...]
    layers: tuple[int, ...]
    layers_pattern: tuple[str, ...]
    base_model: str
    _matcher: PathMatcher = field(repr=False)

    def selects(self, path: str) -> bool:
        """Whether PEFT would put an adapter on this module. Raises InvalidAdapter."""
        if self._excludes(path):
            return False
        if isinstance(self.target_modules, str):
            return self.target_modules.lower() == "all-linear" or self._matcher.full(
                "target_modules", self.target_modules, path
            )
        if path in self.target_modules:  # in full: whatever its layer
            return True
        named = any(path.endswith(f".{name}") for name in self.target_modules)
        return named and (not self.layers or self._layer_of(path) in self.layers)

    def rank(self, path: str) -> int:
        return int(self._pattern("rank_pattern", self.rank_pattern, path, self.r))

    def scaling(self, path: str) -> float:
        alpha = self._pattern("alpha_pattern", self.alpha_pattern, path, self.lora_alpha)
        rank = self.rank(path)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def _excludes(self, path: str) -> bool:
        if isinstance(self.exclude_modules, str):
            return self._matcher.full("exclude_modules", self.exclude_modules, path)
        return any(path == name or path.endswith(f".{name}") for name in self.exclude_modules)

    def _layer_of(self, path: str) -> int | None:
        patterns = [rf"(?:^|.*?\.){name}\.(?P<idx>\d+)\." for name in self.layers_pattern]
        for pattern in patterns or [r".*?\.[^.]*\.(?P<idx>\d+)\."]:
            found = self._matcher.start("layers_pattern", pattern, path)
            if found:
                return None if found["idx"] is None else int(found["idx"])
        return None

    def _pattern(
        self, name: str, patterns: Mapping[str, float], path: str, otherwise: float
    ) -> float:
        for key, value in patterns.items():
            if self._matcher.start(name, rf"(.*\.)?({key})$", path):
                return value
        return patterns.get(path, otherwise)


def read_config(text: str) -> PeftConfig:
    """Raises InvalidAdapter that lists everything wrong with it."""
    raw = _parse(text)
    wrong = _Wrong()
    _refuse_what_is_not_honoured(raw, wrong)
    config = PeftConfig(
        r=wrong.whole(raw, "r", 8, least=1),
        lora_alpha=wrong.number(raw, "lora_alpha", 8),
        use_rslora=bool(raw.get("use_rslora")),
        rank_pattern={
            key: wrong.whole(raw["rank_pattern"], key, 1, least=1, within="rank_pattern.")
            for key in wrong.mapping(raw, "rank_pattern")
        },
        alpha_pattern={
            key: wrong.number(raw["alpha_pattern"], key, 1, within="alpha_pattern.")
            for key in wrong.mapping(raw, "alpha_pattern")
        },
        target_modules=wrong.names(raw, "target_modules"),
        exclude_modules=wrong.names(raw, "exclude_modules"),
        layers=wrong.layers(raw),
        layers_pattern=_listed(wrong.names(raw, "layers_pattern")),
        base_model=str(raw.get("base_model_name_or_path") or ""),
        _matcher=PathMatcher(),
    )
    if not config.target_modules:
        wrong.add("target_modules", "must name at least one module")
    if isinstance(config.target_modules, str):
        for name in ("layers_to_transform", "layers_pattern"):
            if raw.get(name) is not None:
                wrong.add(name, "only goes with a list of target_modules")
    if config.layers_pattern and raw.get("layers_to_transform") is None:
        wrong.add("layers_pattern", "only goes with layers_to_transform")
    wrong.raise_if_any()
    return config


def _parse(text: str) -> dict[str, Any]:
    def refuse(reason: str) -> InvalidAdapter:
        return InvalidAdapter([FieldViolation("adapter_config.json", reason)])

    if len(text.encode(errors="replace")) > MOST_CONFIG_BYTES:
        raise refuse(f"is larger than {MOST_CONFIG_BYTES} bytes")
    try:
        raw = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise refuse(f"is not good JSON: {error}") from error
    if not isinstance(raw, dict):
        raise refuse("must be a JSON object")
    return raw


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _refuse_what_is_not_honoured(raw: Mapping[str, Any], wrong: "_Wrong") -> None:
    if raw.get("peft_type") != "LORA":
        wrong.add("peft_type", f"must be LORA, not {raw.get('peft_type')!r}")
    if raw.get("task_type") not in (None, "CAUSAL_LM"):
        wrong.add("task_type", f"must be CAUSAL_LM, not {raw['task_type']!r}")
    if raw.get("bias", "none") != "none":
        wrong.add("bias", f"{raw['bias']!r} would not be honoured exactly")
    if raw.get("init_lora_weights", True) not in _ORDINARY_INITIALISATIONS:
        wrong.add(
            "init_lora_weights",
            f"{raw['init_lora_weights']!r} changes the base model's weights; convert the adapter "
            "to one for the unchanged base first",
        )
    for name in sorted(raw.keys() - _HARMLESS - _HONOURED):
        value = raw[name]
        if value or value == "" or (name in _NOTHING_IS_NULL and value is not None):
            wrong.add(name, "is not supported and would not be honoured exactly")


def _listed(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


class _Wrong:
    """Collects what is wrong while fields are read."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def add(self, name: str, description: str) -> None:
        self._violations.append(FieldViolation(name, description))

    def raise_if_any(self) -> None:
        if self._violations:
            raise InvalidAdapter(self._violations)

    def number(
        self, raw: Mapping[str, Any], name: str, default: float, *, within: str = ""
    ) -> float:
        value = raw.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e6:
            self.add(within + name, "must be a number of at most a million")
            return default
        return float(value)

    def whole(
        self, raw: Mapping[str, Any], name: str, default: int, *, least: int, within: str = ""
    ) -> int:
        value = raw.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 10**6:
            self.add(within + name, f"must be a whole number of at least {least}")
            return default
        return value

    def mapping(self, raw: Mapping[str, Any], name: str) -> Sequence[str]:
        value = raw.get(name, {})
        if not isinstance(value, dict):
            self.add(name, "must be an object")
            return ()
        return tuple(value)

    def names(self, raw: Mapping[str, Any], name: str) -> str | tuple[str, ...]:
        value = raw.get(name)
        if value is None or value == "":
            return ()
        if isinstance(value, str):
            return value
        if isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        self.add(name, "must be a text or a list of texts")
        return ()

    def layers(self, raw: Mapping[str, Any]) -> tuple[int, ...]:
        value = raw.get("layers_to_transform")
        listed = [] if value is None else value if isinstance(value, list) else [value]
        if all(isinstance(entry, int) for entry in listed):
            return tuple(listed)
        self.add("layers_to_transform", "must be a layer or a list of layers")
        return ()
