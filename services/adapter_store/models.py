"""The adapter store's rows. Times are microseconds since 1970."""

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from services.runtime.db import Base


class BaseModelRow(Base):
    __tablename__ = "base_models"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    card: Mapped[dict[str, object]] = mapped_column(JSON)
    tokenizer_json: Mapped[bytes] = mapped_column(LargeBinary)
    created_us: Mapped[int] = mapped_column(BigInteger)


class BlobRow(Base):
    """Weights that are stored, or about to be, under `key`: another one each time, so that a late
    removal of what was stored before cannot touch it."""

    __tablename__ = "blobs"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(128))
    leased_until_us: Mapped[int] = mapped_column(BigInteger)
    stored_us: Mapped[int | None] = mapped_column(BigInteger)
    verified_us: Mapped[int | None] = mapped_column(BigInteger, index=True)
    damaged_us: Mapped[int | None] = mapped_column(BigInteger)


class GarbageRow(Base):
    """Keys that nothing leads to any more."""

    __tablename__ = "garbage"

    key: Mapped[str] = mapped_column(String(128), primary_key=True)


class AdapterRow(Base):
    """A name that a tenant owns; whoever changes what it means locks its row. It is never removed:
    version numbers and generations are not given out twice."""

    __tablename__ = "adapters"

    tenant: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    last_number: Mapped[int] = mapped_column(Integer)
    created_us: Mapped[int] = mapped_column(BigInteger)
    deleted_us: Mapped[int | None] = mapped_column(BigInteger)


class AdapterVersionRow(Base):
    __tablename__ = "adapter_versions"
    __table_args__ = (
        UniqueConstraint("tenant", "adapter", "number"),
        ForeignKeyConstraint(["tenant", "adapter"], ["adapters.tenant", "adapters.name"]),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    tenant: Mapped[str] = mapped_column(String(63))
    adapter: Mapped[str] = mapped_column(String(63))
    number: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"), index=True)
    base_model: Mapped[str] = mapped_column(ForeignKey("base_models.name"))
    base_fingerprint: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    max_rank: Mapped[int] = mapped_column(Integer)
    module_count: Mapped[int] = mapped_column(Integer)
    parameter_count: Mapped[int] = mapped_column(BigInteger)
    provenance: Mapped[dict[str, object]] = mapped_column(JSON, server_default="{}")
    config_json: Mapped[str] = mapped_column(Text, deferred=True)
    ranks: Mapped[dict[str, int]] = mapped_column(JSON, server_default="{}", deferred=True)
    created_us: Mapped[int] = mapped_column(BigInteger)
    deleted_us: Mapped[int | None] = mapped_column(BigInteger)


class AliasRow(Base):
    """Where an alias points; `version_id` is null once it was deleted, its generation stays."""

    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["tenant", "adapter"], ["adapters.tenant", "adapters.name"]),
    )

    tenant: Mapped[str] = mapped_column(String(63), primary_key=True)
    adapter: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    generation: Mapped[int] = mapped_column(Integer)
    version_id: Mapped[int | None] = mapped_column(ForeignKey("adapter_versions.id"))
    canary_version_id: Mapped[int | None] = mapped_column(ForeignKey("adapter_versions.id"))


class AliasMoveRow(Base):
    """Every generation of every alias, for good: rows are only added."""

    __tablename__ = "alias_moves"
    __table_args__ = (
        UniqueConstraint("tenant", "adapter", "alias", "generation"),
        UniqueConstraint("tenant", "request_id"),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    tenant: Mapped[str] = mapped_column(String(63))
    adapter: Mapped[str] = mapped_column(String(63))
    alias: Mapped[str] = mapped_column(String(63))
    generation: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(16))
    number: Mapped[int | None] = mapped_column(Integer)
    canary_number: Mapped[int | None] = mapped_column(Integer)
    canary_percent: Mapped[int | None] = mapped_column(Integer)
    canary_split: Mapped[str | None] = mapped_column(String(16))
    undo_generation: Mapped[int | None] = mapped_column(Integer)
    moved_by: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(String(64))
    created_us: Mapped[int] = mapped_column(BigInteger)


class ShareRow(Base):
    """Who else may use an adapter: a tenant, or "*" for all."""

    __tablename__ = "shares"
    __table_args__ = (
        ForeignKeyConstraint(["tenant", "adapter"], ["adapters.tenant", "adapters.name"]),
    )

    tenant: Mapped[str] = mapped_column(String(63), primary_key=True)
    adapter: Mapped[str] = mapped_column(String(63), primary_key=True)
    shared_with: Mapped[str] = mapped_column(String(63), primary_key=True, index=True)
    created_us: Mapped[int] = mapped_column(BigInteger)


class ChangeRow(Base):
    """What happened, for those who follow it, in the order of its ids: that of the commits. The
    columns are those of core.changes.Change."""

    __tablename__ = "changes"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    kind: Mapped[str] = mapped_column(String(32))
    tenant: Mapped[str] = mapped_column(String(63))
    adapter: Mapped[str] = mapped_column(String(63))
    number: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(String(64))
    previous_digest: Mapped[str] = mapped_column(String(64))
    canary_number: Mapped[int] = mapped_column(Integer)
    canary_digest: Mapped[str] = mapped_column(String(64))
    alias: Mapped[str] = mapped_column(String(63))
    generation: Mapped[int] = mapped_column(Integer)
    shared_with: Mapped[str] = mapped_column(String(63))
    base_model: Mapped[str] = mapped_column(String(255))
    created_us: Mapped[int] = mapped_column(BigInteger, index=True)


class UploadRow(Base):
    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63), index=True)
    adapter: Mapped[str] = mapped_column(String(63))
    config_json: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    base_model: Mapped[str] = mapped_column(String(255))
    provenance: Mapped[dict[str, object]] = mapped_column(JSON, server_default="{}")
    version_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("adapter_versions.id"))
    created_us: Mapped[int] = mapped_column(BigInteger)
    content_tag: Mapped[str] = mapped_column(String(64), server_default="")
