"""Let keys expire, be rotated and do less than everything; without these they are as before.

A gateway of the release before knows nothing of it: until it is gone it lets expired keys in, lets
every key do everything, and refuses a replaced secret at once.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_keys"
down_revision = "2026_11_21_changes"
branch_labels = None
depends_on = None

COLUMNS = (
    ("expire_us", sa.BigInteger()),
    ("scopes", sa.String(200)),
    ("previous_hmac", sa.String(64)),
    ("previous_expire_us", sa.BigInteger()),
)


def upgrade() -> None:
    for name, kind in COLUMNS:
        op.add_column("keys", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    """Keys do everything again, and expired ones work again: revoke them before."""
    for name, _ in reversed(COLUMNS):
        op.drop_column("keys", name)
