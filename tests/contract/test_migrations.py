"""Revisions and models say the same, on both databases, and every revision can be undone."""

from pathlib import Path

import pytest
from alembic import command

from services.core.errors import FailedPrecondition
from services.runtime.migrate import configuration, migrate, require_current
from tests.databases import KINDS, database


@pytest.mark.parametrize("kind", KINDS)
def test_up_check_down_up(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as url:
        config = configuration(url)
        migrate(url)
        command.check(config)  # raises if the models have what the revisions lack
        command.downgrade(config, "base")
        migrate(url)
        migrate(url)
        command.check(config)


async def test_a_service_refuses_a_database_of_another_revision(tmp_path: Path) -> None:
    refusal = pytest.raises(FailedPrecondition, match=r"services\.runtime\.migrate")
    with database("sqlite", tmp_path) as url, refusal:
        await require_current(url)
