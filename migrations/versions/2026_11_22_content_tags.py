"""Uploads whose SHA-256 is told at their end are known by a tag of their caller's making.

A store of the release before takes none: it finds no upload that has a tag, and begins another.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_content_tags"
down_revision = "2026_11_22_fleet"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "uploads", sa.Column("content_tag", sa.String(64), nullable=False, server_default="")
    )


def downgrade() -> None:
    """Unfinished uploads without a SHA-256 can then only be begun again."""
    op.drop_column("uploads", "content_tag")
