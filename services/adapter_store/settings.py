"""ADAPTER_STORE_* settings."""

from pathlib import Path

from pydantic import Field, model_validator

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
    upload_url: str = ""
    """Where clients PUT the bytes of uploads, past gRPC: https://host:port or http://host:port that
    leads to upload_address, "bucket" for URLs of blob_url's bucket itself, or "" for gRPC alone.
    Clients that cannot reach it use gRPC."""
    upload_address: str = ""
    """host:port to take those PUTs on."""
    upload_certificate: Path | None = None
    """PEM of its chain; with it upload_address speaks TLS. Read at start."""
    upload_key: Path | None = None
    """PEM of the certificate's key, if it is not in the same file."""
    limits: StoreLimits = StoreLimits()
    keeping: Keeping = Keeping()
    """How long what was deleted, left unfinished or told of is kept: undelete, grace, uploads and
    changes, as ISO 8601 durations."""
    collect_seconds: float = Field(3600.0, gt=0)
    """How often what nobody can reach goes, and some of what is kept is read again."""

    @model_validator(mode="after")
    def _the_door_is_whole(self) -> "AdapterStoreSettings":
        if self.upload_url == "bucket":
            if not self.blob_url.startswith("s3://"):
                raise ValueError("upload_url: blob_url is no bucket")
        elif self.upload_url and not self.upload_url.startswith(("http://", "https://")):
            raise ValueError('upload_url: http://host:port, https://host:port or "bucket"')
        elif bool(self.upload_url) != bool(self.upload_address):
            raise ValueError("upload_url and upload_address: the one needs the other")
        return self
