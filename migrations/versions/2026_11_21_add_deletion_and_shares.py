"""Let owners delete what they have and share it: both say who may use an adapter."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_21_deletion_and_shares"
down_revision = "2026_11_21_provenance"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("adapters", sa.Column("deleted_us", sa.BigInteger(), nullable=True))
    op.add_column("adapter_versions", sa.Column("deleted_us", sa.BigInteger(), nullable=True))
    op.create_table(
        "shares",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("adapter", sa.String(63), nullable=False),
        sa.Column("shared_with", sa.String(63), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "adapter"],
            ["adapters.tenant", "adapters.name"],
            name="fk_shares_tenant_adapter_adapters",
        ),
        sa.PrimaryKeyConstraint("tenant", "adapter", "shared_with", name="pk_shares"),
    )
    op.create_index("ix_shares_shared_with", "shares", ["shared_with"])


def downgrade() -> None:
    op.drop_table("shares")
    op.drop_column("adapter_versions", "deleted_us")
    op.drop_column("adapters", "deleted_us")
