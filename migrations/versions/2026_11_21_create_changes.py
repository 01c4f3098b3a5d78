"""Create what watchers follow: every change, in the order of the commits."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_21_changes"
down_revision = "2026_11_21_blobs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("adapter", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("previous_digest", sa.String(64), nullable=False),
        sa.Column("canary_number", sa.Integer(), nullable=False),
        sa.Column("canary_digest", sa.String(64), nullable=False),
        sa.Column("alias", sa.String(63), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("shared_with", sa.String(63), nullable=False),
        sa.Column("base_model", sa.String(255), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_changes"),
    )
    op.create_index("ix_changes_created_us", "changes", ["created_us"])


def downgrade() -> None:
    op.drop_table("changes")


_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
