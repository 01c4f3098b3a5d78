"""ADAPTER_STORE_* settings."""

from pathlib import Path

from pydantic import Field

from services.adapter_store.collection import Keeping
from services.adapter_store.uploads import StoreLimits
from services.runtime.settings import ServiceSettings


class AdapterStoreSettings(ServiceSettings, env_prefix="ADAPTER_STORE_"):
    address: str = "127.0.0.1:7412"
    database_url: str
    """SQLAlchemy URL, for instance sqlite+aiosqlite:////var/lib/lorikeet/lorikeet.db."""
    blob_url: str
    """Where weights are kept: file:///folder or s3://bucket/prefix. A bucket needs a rule that ends
    incomplete multipart uploads, which a store that was killed leaves behind."""
    uploads_folder: Path
    """Where unfinished uploads are kept."""
    limits: StoreLimits = StoreLimits()
    keeping: Keeping = Keeping()
    """How long what was deleted, left unfinished or told of is kept: undelete, grace, uploads and
    changes, as ISO 8601 durations."""
    collect_seconds: float = Field(3600.0, gt=0)
    """How often what nobody can reach goes, and some of what is kept is read again."""
