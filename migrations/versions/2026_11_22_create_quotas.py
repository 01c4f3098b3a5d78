"""Create quotas: limits, what counts against them, and what running requests hold of them."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_quotas"
down_revision = "2026_11_22_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quotas",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("key", sa.String(16), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("concurrent_requests", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_month", sa.BigInteger(), nullable=True),
        sa.Column("tokens_in_total", sa.BigInteger(), nullable=True),
        sa.Column("running_requests", sa.BigInteger(), nullable=False),
        sa.Column("running_tokens", sa.BigInteger(), nullable=False),
        sa.Column("month", sa.Integer(), nullable=False),
        sa.Column("month_tokens", sa.BigInteger(), nullable=False),
        sa.Column("total_tokens", sa.BigInteger(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name="fk_quotas_tenant_tenants"),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_quotas"),
    )
    op.create_table(
        "quota_holders",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("lease_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quota_holders"),
    )
    op.create_table(
        "quota_reservations",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("key", sa.String(16), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("holder", sa.String(32), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "key", name="pk_quota_reservations"),
    )
    op.create_index("ix_quota_reservations_holder", "quota_reservations", ["holder"])


def downgrade() -> None:
    """Nobody has limits any more, and what was used is forgotten."""
    op.drop_table("quota_reservations")
    op.drop_table("quota_holders")
    op.drop_table("quotas")
