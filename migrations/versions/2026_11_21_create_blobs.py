"""Know every blob, from the versions that there are, so that those nobody needs can go."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_21_blobs"
down_revision = "2026_11_21_deletion_and_shares"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "blobs",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("leased_until_us", sa.BigInteger(), nullable=False),
        sa.Column("stored_us", sa.BigInteger(), nullable=True),
        sa.Column("verified_us", sa.BigInteger(), nullable=True),
        sa.Column("damaged_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name="pk_blobs"),
    )
    op.create_index("ix_blobs_verified_us", "blobs", ["verified_us"])
    op.execute(
        "INSERT INTO blobs (digest, key, leased_until_us, stored_us) "
        "SELECT digest, 'blobs/sha256/' || substr(digest, 1, 2) || '/' || digest, 0, "
        "min(created_us) FROM adapter_versions GROUP BY digest"
    )
    with op.batch_alter_table("adapter_versions") as versions:
        versions.create_foreign_key(
            "fk_adapter_versions_digest_blobs", "blobs", ["digest"], ["digest"]
        )
    op.create_table(
        "garbage",
        sa.Column("key", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_garbage"),
    )


def downgrade() -> None:
    op.drop_table("garbage")
    with op.batch_alter_table("adapter_versions") as versions:
        versions.drop_constraint("fk_adapter_versions_digest_blobs", type_="foreignkey")
    op.drop_table("blobs")
