"""The gateway's rows."""

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from services.runtime.db import Base


class TenantRow(Base):
    __tablename__ = "tenants"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    created_us: Mapped[int] = mapped_column(BigInteger)  # microseconds since 1970
    organisation: Mapped[str | None] = mapped_column(ForeignKey("organisations.name"))
    weight: Mapped[float] = mapped_column(Double, server_default="1")
    highest_tier: Mapped[str] = mapped_column(String(16), server_default="default")


class OrganisationRow(Base):
    """Tenants that share what it gets."""

    __tablename__ = "organisations"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    weight: Mapped[float] = mapped_column(Double)


class KeyRow(Base):
    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.name"), index=True)
    label: Mapped[str] = mapped_column(String(100))
    secret_hmac: Mapped[str] = mapped_column(String(64))
    created_us: Mapped[int] = mapped_column(BigInteger)
    revoked_us: Mapped[int | None] = mapped_column(BigInteger)
    expire_us: Mapped[int | None] = mapped_column(BigInteger)
    scopes: Mapped[str | None] = mapped_column(String(200))  # by spaces; NULL: all
    previous_hmac: Mapped[str | None] = mapped_column(String(64))
    previous_expire_us: Mapped[int | None] = mapped_column(BigInteger)


class QuotaRow(Base):
    """The limits of a tenant (key "") or of one of its keys, and what counts against them; whoever
    reserves or settles locks it. There from when limits were first set."""

    __tablename__ = "quotas"

    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.name"), primary_key=True)
    key: Mapped[str] = mapped_column(String(16), primary_key=True)
    requests_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    concurrent_requests: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_month: Mapped[int | None] = mapped_column(BigInteger)
    tokens_in_total: Mapped[int | None] = mapped_column(BigInteger)
    running_requests: Mapped[int] = mapped_column(BigInteger)
    running_tokens: Mapped[int] = mapped_column(BigInteger)
    month: Mapped[int] = mapped_column(Integer)  # since the year 0
    month_tokens: Mapped[int] = mapped_column(BigInteger)
    total_tokens: Mapped[int] = mapped_column(BigInteger)
    window: Mapped[str] = mapped_column(Text)  # JSON: [[second, requests, tokens], ...]


class ReservationRow(Base):
    """What a running request holds of one quota; who deletes it settles it."""

    __tablename__ = "quota_reservations"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(String(16), primary_key=True)  # of the quota
    tenant: Mapped[str] = mapped_column(String(63))
    holder: Mapped[str] = mapped_column(String(32), index=True)  # an instance of the gateway
    requests: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(BigInteger)
    since_us: Mapped[int] = mapped_column(BigInteger)


class HolderRow(Base):
    """Of the release before, which writes and reads it; the next one has it no more."""

    __tablename__ = "quota_holders"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    lease_us: Mapped[int] = mapped_column(BigInteger)


class LedgerRow(Base):
    """A request. While it runs `outcome` is null; tokens and charge are those last marked.

    Tenant and key are no foreign keys: what was used stays on the books, whoever has gone.
    """

    __tablename__ = "ledger"

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    asked_id: Mapped[str] = mapped_column(String(64), index=True)  # as its caller calls it
    instance: Mapped[str] = mapped_column(String(32))  # of the gateway that runs it
    tenant: Mapped[str] = mapped_column(String(63))
    key: Mapped[str] = mapped_column(String(16))
    adapter: Mapped[str] = mapped_column(String(64))  # digest; empty: the base model alone
    model: Mapped[str] = mapped_column(String(255))  # as its caller named it
    base_model: Mapped[str] = mapped_column(String(255))
    worker: Mapped[str] = mapped_column(String(255))
    prompt_tokens: Mapped[int] = mapped_column(Integer)
    cached_tokens: Mapped[int] = mapped_column(Integer)
    completion_tokens: Mapped[int] = mapped_column(Integer)
    accepted_us: Mapped[int] = mapped_column(BigInteger)  # microseconds since 1970
    queue_us: Mapped[int | None] = mapped_column(BigInteger)  # these three: since it was accepted
    first_token_us: Mapped[int | None] = mapped_column(BigInteger)
    total_us: Mapped[int | None] = mapped_column(BigInteger)
    outcome: Mapped[str | None] = mapped_column(String(32))
    charge: Mapped[float] = mapped_column(Double)
    cost: Mapped[str] = mapped_column(String(64))  # the function that the charge is by
    tier: Mapped[str] = mapped_column(String(16), server_default="default")

    __table_args__ = (
        Index(None, "tenant", "accepted_us", "id"),
        Index(None, "accepted_us", "id"),
        Index(
            "ix_ledger_open",
            "instance",
            sqlite_where=text("outcome IS NULL"),
            postgresql_where=text("outcome IS NULL"),
        ),
    )


class InstanceRow(Base):
    """A gateway that lives for as long as `beat` goes on changing; the only sign of it."""

    __tablename__ = "gateway_instances"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    beat: Mapped[int] = mapped_column(BigInteger)
