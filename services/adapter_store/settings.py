"""ADAPTER_STORE_* settings."""

from pathlib import Path

from pydantic import Field

from services.adapter_store.uploads import StoreLimits
from services.runtime.settings import ServiceSettings


class AdapterStoreSettings(ServiceSettings, env_prefix="ADAPTER_STORE_"):
    address: str = "127.0.0.1:7412"
    database_url: str
    """SQLAlchemy URL, for instance sqlite+aiosqlite:////var/lib/lorikeet/lorikeet.db."""
    blob_url: str
    """Where weights are kept: file:///folder or s3://bucket/prefix."""
    uploads_folder: Path
    """Where unfinished uploads are kept."""
    limits: StoreLimits = StoreLimits()
    undelete_days: float = Field(7.0, ge=0)
    """How long what was deleted can be brought back."""
