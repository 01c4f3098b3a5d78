"""The trainer's rows."""

from sqlalchemy import (
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from services.runtime.db import Base


class JobRow(Base):
    """A training job. `term` counts who took it; `beat` counts up while its holder lives."""

    __tablename__ = "training_jobs"

    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    id: Mapped[str] = mapped_column(String(40), unique=True)
    tenant: Mapped[str] = mapped_column(String(63))
    request_id: Mapped[str] = mapped_column(String(64))  # the id of a job that was given none
    adapter: Mapped[str] = mapped_column(String(63))
    base_model: Mapped[str] = mapped_column(String(255))
    base_fingerprint: Mapped[str] = mapped_column(String(64))
    method: Mapped[str] = mapped_column(String(32))
    data: Mapped[str] = mapped_column(Text)  # JSON
    config: Mapped[str] = mapped_column(Text)  # JSON
    created_by: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    term: Mapped[int] = mapped_column(BigInteger)
    beat: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str] = mapped_column(String(255))
    checkpoint: Mapped[str] = mapped_column(String(64))
    saved_steps: Mapped[int] = mapped_column(Integer)
    total_steps: Mapped[int] = mapped_column(Integer)
    crashes: Mapped[int] = mapped_column(Integer)
    error: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(String(64))
    metrics: Mapped[str] = mapped_column(Text)  # JSON
    created_us: Mapped[int] = mapped_column(BigInteger)  # microseconds since 1970
    started_us: Mapped[int] = mapped_column(BigInteger)
    ended_us: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        UniqueConstraint("tenant", "request_id"),
        Index(None, "tenant", "number"),
        Index(None, "state", "number"),
    )


class PointRow(Base):
    """What one step of a job showed."""

    __tablename__ = "training_points"

    job: Mapped[str] = mapped_column(ForeignKey(JobRow.id, ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    loss: Mapped[float] = mapped_column(Double)
    validation_loss: Mapped[float | None] = mapped_column(Double)
    accuracy: Mapped[float | None] = mapped_column(Double)
