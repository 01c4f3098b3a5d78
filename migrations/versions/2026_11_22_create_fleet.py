"""Create what is kept of the fleet: who leads, what is wanted, and what was moved."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_fleet"
down_revision = "2026_11_22_tiers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scheduler_terms",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_scheduler_terms"),
    )
    op.create_table(
        "worker_wishes",
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("wish", sa.String(16), nullable=False),
        sa.Column("wished_by", sa.String(255), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("worker", name="pk_worker_wishes"),
    )
    op.create_table(
        "adapter_pins",
        sa.Column("adapter", sa.String(64), nullable=False),
        sa.Column("base_model", sa.String(255), nullable=False),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("pinned_by", sa.String(255), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("adapter", name="pk_adapter_pins"),
    )
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "request_migrations",
        sa.Column("number", number, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("request", sa.String(255), nullable=False),
        sa.Column("adapter", sa.String(64), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("gain_seconds", sa.Double(), nullable=False),
        sa.Column("ordered_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_request_migrations"),
        sa.UniqueConstraint("id", name="uq_request_migrations_id"),
    )
    for columns in (["ordered_us"], ["source", "number"], ["target", "number"]):
        name = "_".join(["ix_request_migrations", *columns])
        op.create_index(name, "request_migrations", columns)


def downgrade() -> None:
    """What was wanted of workers, what was pinned and what was moved is forgotten."""
    op.drop_table("request_migrations")
    op.drop_table("adapter_pins")
    op.drop_table("worker_wishes")
    op.drop_table("scheduler_terms")
