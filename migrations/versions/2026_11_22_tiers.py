"""Tiers of service: the highest that a tenant may ask for, and the one that a request had.

A gateway of the release before knows nothing of them: there every request is of the default tier,
and so its rows say.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_tiers"
down_revision = "2026_11_22_one_lease"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, column in (("tenants", "highest_tier"), ("ledger", "tier")):
        op.add_column(
            table, sa.Column(column, sa.String(16), nullable=False, server_default="default")
        )


def downgrade() -> None:
    """What tier a request had is lost."""
    op.drop_column("ledger", "tier")
    op.drop_column("tenants", "highest_tier")
