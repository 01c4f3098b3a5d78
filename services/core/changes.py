"""What happens in the adapter store, as whoever follows it hears of it."""

from dataclasses import dataclass
from enum import Enum

from services.core.types import Digest, TenantId

NOBODY = TenantId("")
NOTHING = Digest("")


class ChangeKind(Enum):
    VERSION_ADDED = "version_added"
    VERSION_DELETED = "version_deleted"
    VERSION_UNDELETED = "version_undeleted"
    ADAPTER_DELETED = "adapter_deleted"
    ADAPTER_UNDELETED = "adapter_undeleted"
    ALIAS_MOVED = "alias_moved"
    SHARED = "shared"
    UNSHARED = "unshared"
    BASE_MODEL_REGISTERED = "base_model_registered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """See adapter_lifecycle_service.proto for every field; what does not apply is empty.

    `kind` None is one that this release does not know: anything may have happened.
    """

    kind: ChangeKind | None
    tenant: TenantId = NOBODY
    adapter: str = ""
    number: int = 0
    digest: Digest = NOTHING
    previous_digest: Digest = NOTHING
    canary_number: int = 0
    canary_digest: Digest = NOTHING
    alias: str = ""
    generation: int = 0
    shared_with: str = ""
    base_model: str = ""
