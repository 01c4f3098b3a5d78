"""A base model as all services know it: names, limits, tokenizer, linear layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.core.types import Fingerprint


@dataclass(frozen=True, slots=True)
class Module:
    """A linear layer that adapters may change; `site` is layer and short name ("0.q")."""

    path: str
    site: str
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class BaseModel:
    """See adapter.proto for every field; `created` is when the store first heard of it."""

    name: str
    also_known_as: tuple[str, ...]
    fingerprint: Fingerprint
    architecture: str
    context_tokens: int
    vocabulary_tokens: int
    end_tokens: tuple[int, ...]
    chat_template: str
    special_tokens: Mapping[str, str]
    modules: tuple[Module, ...]
    tokenizer_json: bytes = field(repr=False)
    created: datetime | None = None
    head_dim: int = 0

    @property
    def created_seconds(self) -> int:
        """Unix time; 0 before the store has heard of it."""
        return 0 if self.created is None else int(self.created.timestamp())

    def is_called(self, name: str) -> bool:
        return name.lower() in {known.lower() for known in (self.name, *self.also_known_as)}
