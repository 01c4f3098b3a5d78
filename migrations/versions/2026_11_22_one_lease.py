"""Know by one sign which gateways live: their beats in gateway_instances.

Every gateway, also of the release before, beats there under the name that it reserves by, so that
nothing is to be added or filled. Those of the release before go on with quota_holders among
themselves; the release after this one drops it.
"""

from alembic import op

revision = "2026_11_22_one_lease"
down_revision = "2026_11_22_organisations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing: see above."""


def downgrade() -> None:
    """What gateways of this release left reserved has holders again, whose leases are over."""
    op.execute(
        "INSERT INTO quota_holders (id, lease_us) SELECT DISTINCT holder, 0 FROM quota_reservations"
        " WHERE holder NOT IN (SELECT id FROM quota_holders)"
    )
