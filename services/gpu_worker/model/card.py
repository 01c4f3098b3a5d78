"""A base model as others need to know it: names, limits, tokenizer, linear layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.core.types import Fingerprint


@dataclass(frozen=True, slots=True)
class ModuleShape:
    """A linear layer that adapters may change; `site` is layer and short name ("0.q")."""

    path: str
    site: str
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class ModelCard:
    """See BaseModel in adapter.proto."""

    name: str
    also_known_as: tuple[str, ...]
    fingerprint: Fingerprint
    architecture: str
    context_tokens: int
    vocabulary_tokens: int
    end_tokens: tuple[int, ...]
    chat_template: str
    special_tokens: Mapping[str, str]
    modules: tuple[ModuleShape, ...]
    tokenizer_json: bytes = field(repr=False)
