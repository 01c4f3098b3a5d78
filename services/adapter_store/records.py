"""What the store knows, as its domain speaks of it; see adapter.proto for every field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from services.adapter_store.arrangement import Arrangement
from services.core.types import AdapterName, Digest, Fingerprint, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a version comes from, in its maker's words; `created_by` in ours."""

    created_by: str = ""
    job: str = ""
    licence: str = ""
    parents: tuple[str, ...] = ()  # digests
    labels: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


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
    provenance: Provenance = Provenance()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterVersion(_Version):
    number: int
    created: datetime
    deleted: datetime | None = None


@dataclass(frozen=True, slots=True)
class VersionDetails:
    """What is too long for listings."""

    config_json: str
    ranks: Mapping[str, int]  # by site


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion(_Version):
    """A validated version that has no number yet."""

    details: VersionDetails


@dataclass(frozen=True, slots=True)
class VersionFilter:
    """What a listing shows; all of it must hold."""

    base_model: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    with_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    id: str
    tenant: TenantId
    adapter: AdapterName
    config_json: str
    size_bytes: int
    sha256: str  # "": told at the end, and until then it is known by its tag
    base_model: str
    provenance: Provenance = Provenance()
    content_tag: str = ""
    committed_bytes: int = 0
    chunk_bytes: int = 1024 * 1024
    arrangement: Arrangement | None = None  # of what is to be sent, where that was just said


@dataclass(frozen=True, slots=True)
class Chunk:
    upload_id: str
    offset: int
    data: bytes
    crc32: int


class Split(Enum):
    """By what a canary's share is drawn."""

    REQUEST = "request"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Canary:
    """A second version that gets `percent` of what comes, 1 to 99."""

    number: int
    percent: int
    split: Split


@dataclass(frozen=True, slots=True)
class Target:
    """What an alias means: one version, or two for a while."""

    number: int
    canary: Canary | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        return (self.number,) if self.canary is None else (self.number, self.canary.number)


class MoveKind(Enum):
    SET = "set"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    CANARY = "canary"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One generation of an alias; `undo` is the generation that a rollback goes back to."""

    tenant: TenantId
    adapter: AdapterName
    alias: str
    generation: int
    kind: MoveKind
    target: Target | None
    undo: int | None
    by: str
    reason: str
    created: datetime


@dataclass(frozen=True, slots=True)
class Meaning:
    """An alias's newest generation, if it was ever set, and the versions that one may get."""

    move: Move | None
    versions: Sequence[AdapterVersion]

    def numbered(self, number: int) -> AdapterVersion | None:
        return next((found for found in self.versions if found.number == number), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Who wants an alias moved, and how sure they are of what it is now."""

    by: str
    reason: str = ""
    expected_generation: int | None = None
    request_id: str | None = None
