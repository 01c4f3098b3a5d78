"""Create adapters, from the versions there are; aliases and their history."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_21_aliases"
down_revision = "2026_11_21_tenants"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "adapters",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name="pk_adapters"),
    )
    op.execute(
        "INSERT INTO adapters (tenant, name, last_number, created_us) "
        "SELECT tenant, adapter, max(number), min(created_us) FROM adapter_versions "
        "GROUP BY tenant, adapter"
    )
    with op.batch_alter_table("adapter_versions") as versions:
        versions.create_foreign_key(
            "fk_adapter_versions_tenant_adapter_adapters",
            "adapters",
            ["tenant", "adapter"],
            ["tenant", "name"],
        )
    op.create_table(
        "aliases",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("adapter", sa.String(63), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("version_id", _ID, nullable=True),
        sa.Column("canary_version_id", _ID, nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant", "adapter"],
            ["adapters.tenant", "adapters.name"],
            name="fk_aliases_tenant_adapter_adapters",
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["adapter_versions.id"], name="fk_aliases_version_id_adapter_versions"
        ),
        sa.ForeignKeyConstraint(
            ["canary_version_id"],
            ["adapter_versions.id"],
            name="fk_aliases_canary_version_id_adapter_versions",
        ),
        sa.PrimaryKeyConstraint("tenant", "adapter", "name", name="pk_aliases"),
    )
    op.create_table(
        "alias_moves",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("adapter", sa.String(63), nullable=False),
        sa.Column("alias", sa.String(63), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("canary_number", sa.Integer(), nullable=True),
        sa.Column("canary_percent", sa.Integer(), nullable=True),
        sa.Column("canary_split", sa.String(16), nullable=True),
        sa.Column("undo_generation", sa.Integer(), nullable=True),
        sa.Column("moved_by", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alias_moves"),
        sa.UniqueConstraint(
            "tenant",
            "adapter",
            "alias",
            "generation",
            name="uq_alias_moves_tenant_adapter_alias_generation",
        ),
        sa.UniqueConstraint("tenant", "request_id", name="uq_alias_moves_tenant_request_id"),
    )


def downgrade() -> None:
    op.drop_table("alias_moves")
    op.drop_table("aliases")
    with op.batch_alter_table("adapter_versions") as versions:
        versions.drop_constraint("fk_adapter_versions_tenant_adapter_adapters", type_="foreignkey")
    op.drop_table("adapters")


_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
