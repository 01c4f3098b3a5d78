"""Create organisations, to which tenants may belong, and weights of both.

A gateway of the release before knows nothing of them: until it is gone all weigh the same there.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_organisations"
down_revision = "2026_11_22_ledger"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "organisations",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_organisations"),
    )
    # In one statement, which both databases know: with another for the constraint, SQLite would
    # have to copy the table, to which others refer.
    op.execute(
        "ALTER TABLE tenants ADD COLUMN organisation VARCHAR(63)"
        " CONSTRAINT fk_tenants_organisation_organisations REFERENCES organisations (name)"
    )
    op.add_column("tenants", sa.Column("weight", sa.Double(), nullable=False, server_default="1"))


def downgrade() -> None:
    """Everybody weighs the same again, and every tenant is by itself."""
    op.drop_column("tenants", "weight")
    op.drop_column("tenants", "organisation")
    op.drop_table("organisations")
