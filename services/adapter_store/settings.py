"""ADAPTER_STORE_* settings."""

from pathlib import Path

from services.adapter_store.catalog import StoreLimits
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
