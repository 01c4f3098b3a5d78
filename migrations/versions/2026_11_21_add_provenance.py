"""Say of every version where it comes from, and the rank of each of its modules."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_21_provenance"
down_revision = "2026_11_21_aliases"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, column in _ADDED:
        op.add_column(table, sa.Column(column, sa.JSON(), server_default="{}", nullable=False))


def downgrade() -> None:
    for table, column in reversed(_ADDED):
        op.drop_column(table, column)


_ADDED = (
    ("adapter_versions", "provenance"),
    ("adapter_versions", "ranks"),
    ("uploads", "provenance"),
)
