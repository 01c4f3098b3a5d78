"""Create training jobs, and what their steps showed."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_training"
down_revision = "2026_11_22_content_tags"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "training_jobs",
        sa.Column("number", number, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("adapter", sa.String(63), nullable=False),
        sa.Column("base_model", sa.String(255), nullable=False),
        sa.Column("base_fingerprint", sa.String(64), nullable=False),
        sa.Column("method", sa.String(32), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("checkpoint", sa.String(64), nullable=False),
        sa.Column("saved_steps", sa.Integer(), nullable=False),
        sa.Column("total_steps", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_training_jobs"),
        sa.UniqueConstraint("id", name="uq_training_jobs_id"),
        sa.UniqueConstraint("tenant", "request_id", name="uq_training_jobs_tenant_request_id"),
    )
    for columns in (["tenant", "number"], ["state", "number"]):
        name = "_".join(["ix_training_jobs", *columns])
        op.create_index(name, "training_jobs", columns)
    op.create_table(
        "training_points",
        sa.Column("job", sa.String(40), nullable=False),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("validation_loss", sa.Double(), nullable=True),
        sa.Column("accuracy", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("job", "step", name="pk_training_points"),
        sa.ForeignKeyConstraint(
            ["job"], ["training_jobs.id"], name="fk_training_points_job_training_jobs",
            ondelete="CASCADE",
        ),
    )  # fmt: skip


def downgrade() -> None:
    """Jobs are forgotten; the versions that came of them stay in the store."""
    op.drop_table("training_points")
    op.drop_table("training_jobs")
