"""The scheduler's rows."""

from sqlalchemy import BigInteger, Double, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from services.runtime.db import Base


class TermRow(Base):
    """Who leads: one row. Whoever writes as the leader locks it, and finds its own term there."""

    __tablename__ = "scheduler_terms"

    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    term: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str] = mapped_column(String(255))
    since_us: Mapped[int] = mapped_column(BigInteger)  # microseconds since 1970


class WorkerWishRow(Base):
    """What the operator wants of a worker, live or not."""

    __tablename__ = "worker_wishes"

    worker: Mapped[str] = mapped_column(String(255), primary_key=True)
    wish: Mapped[str] = mapped_column(String(16))
    wished_by: Mapped[str] = mapped_column(String(255))
    since_us: Mapped[int] = mapped_column(BigInteger)


class PinRow(Base):
    """An adapter to be kept on the device of so many workers."""

    __tablename__ = "adapter_pins"

    adapter: Mapped[str] = mapped_column(String(64), primary_key=True)  # digest
    base_model: Mapped[str] = mapped_column(String(255))
    workers: Mapped[int] = mapped_column(Integer)
    pinned_by: Mapped[str] = mapped_column(String(255))
    since_us: Mapped[int] = mapped_column(BigInteger)


class MigrationRow(Base):
    """A request's move, from when it was ordered; kept for some time."""

    __tablename__ = "request_migrations"

    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    id: Mapped[str] = mapped_column(String(40), unique=True)
    request: Mapped[str] = mapped_column(String(255))
    adapter: Mapped[str] = mapped_column(String(64))  # digest; empty: the base model alone
    source: Mapped[str] = mapped_column(String(255))
    target: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    tokens: Mapped[int] = mapped_column(Integer)
    gain_seconds: Mapped[float] = mapped_column(Double)
    ordered_us: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        Index(None, "ordered_us"),
        Index(None, "source", "number"),
        Index(None, "target", "number"),
    )
