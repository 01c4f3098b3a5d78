"""What the store knows, as its domain speaks of it; see adapter.proto for every field."""

from dataclasses import dataclass
from datetime import datetime

from services.core.types import AdapterName, Digest, Fingerprint, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    tenant: TenantId
    adapter: AdapterName
    digest: Digest
    base_model: str
    base_fingerprint: Fingerprint
    size_bytes: int
    max_rank: int
    module_count: int
    parameter_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterVersion(_Version):
    number: int
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion(_Version):
    """A validated version that has no number yet."""

    config_json: str


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
