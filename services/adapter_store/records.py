"""What the store knows, as its domain speaks of it; see adapter.proto for every field."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.core.types import AdapterName, Digest, Fingerprint, TenantId


@dataclass(frozen=True, slots=True)
class Module:
    path: str
    site: str
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class BaseModel:
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

    def is_called(self, name: str) -> bool:
        return name.lower() in {known.lower() for known in (self.name, *self.also_known_as)}


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    tenant: TenantId
    adapter: AdapterName
    number: int
    digest: Digest
    base_model: str
    base_fingerprint: Fingerprint
    size_bytes: int
    max_rank: int
    module_count: int
    parameter_count: int
    created: datetime


@dataclass(frozen=True, slots=True)
class Upload:
    id: str
    tenant: TenantId
    adapter: AdapterName
    config_json: str
    size_bytes: int
    sha256: str
    base_model: str
    committed_bytes: int = 0
    chunk_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Chunk:
    upload_id: str
    offset: int
    data: bytes
    crc32: int


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A validated version that has no number yet."""

    tenant: TenantId
    adapter: AdapterName
    digest: Digest
    base_model: str
    base_fingerprint: Fingerprint
    size_bytes: int
    max_rank: int
    module_count: int
    parameter_count: int
    config_json: str
