"""Create the ledger: a row for every request, and who keeps it."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_ledger"
down_revision = "2026_11_22_quotas"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", sa.String(100), nullable=False),
        sa.Column("asked_id", sa.String(64), nullable=False),
        sa.Column("instance", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("key", sa.String(16), nullable=False),
        sa.Column("adapter", sa.String(64), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("base_model", sa.String(255), nullable=False),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("accepted_us", sa.BigInteger(), nullable=False),
        sa.Column("queue_us", sa.BigInteger(), nullable=True),
        sa.Column("first_token_us", sa.BigInteger(), nullable=True),
        sa.Column("total_us", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(32), nullable=True),
        sa.Column("charge", sa.Double(), nullable=False),
        sa.Column("cost", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
    )
    op.create_index("ix_ledger_asked_id", "ledger", ["asked_id"])
    op.create_index("ix_ledger_tenant_accepted_us_id", "ledger", ["tenant", "accepted_us", "id"])
    op.create_index("ix_ledger_accepted_us_id", "ledger", ["accepted_us", "id"])
    running = sa.text("outcome IS NULL")
    op.create_index(
        "ix_ledger_open", "ledger", ["instance"], sqlite_where=running, postgresql_where=running
    )
    op.create_table(
        "gateway_instances",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gateway_instances"),
    )


def downgrade() -> None:
    op.drop_table("gateway_instances")
    op.drop_table("ledger")
