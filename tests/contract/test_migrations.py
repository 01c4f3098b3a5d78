"""Revisions and models say the same, on both databases, and every revision can be undone."""

from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine, text

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


@pytest.mark.parametrize("kind", KINDS)
def test_versions_of_before_have_their_adapters(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as url:
        command.upgrade(configuration(url), "2026_11_21_tenants")
        engine = create_engine(url.replace("+aiosqlite", ""))
        with engine.begin() as connection:
            connection.execute(
                text("INSERT INTO base_models VALUES ('tiny', :f, '{}', :t, 0)"),
                {"f": "f" * 64, "t": b"{}"},
            )
            for number in (1, 2):
                connection.execute(
                    text(
                        "INSERT INTO adapter_versions VALUES"
                        " (:n, 'acme', 'sql', :n, 'd', 'tiny', 'f', 1, 8, 1, 1, '{}', :n)"
                    ),
                    {"n": number},
                )
        migrate(url)
        with engine.connect() as connection:
            kept = connection.execute(text("SELECT number, provenance FROM adapter_versions"))
            assert len(kept.all()) == 2
            made = connection.execute(text("SELECT tenant, name, last_number FROM adapters"))
            assert [tuple(row) for row in made] == [("acme", "sql", 2)]
        engine.dispose()


@pytest.mark.parametrize("kind", KINDS)
def test_the_release_before_finds_what_this_one_left_reserved(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as url:
        migrate(url)
        engine = create_engine(url.replace("+aiosqlite", ""))
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO quota_holders VALUES ('old', 5)"))
            for holder, key in (("old", ""), ("new", ""), ("new", "k")):
                connection.execute(
                    text("INSERT INTO quota_reservations VALUES (:h, :k, 'acme', :h, 1, 1, 0)"),
                    {"h": holder, "k": key},
                )
        command.downgrade(configuration(url), "2026_11_22_organisations")
        with engine.connect() as connection:
            found = connection.execute(text("SELECT id, lease_us FROM quota_holders ORDER BY id"))
            assert [tuple(row) for row in found] == [("new", 0), ("old", 5)]
        engine.dispose()


async def test_a_service_refuses_a_database_of_another_revision(tmp_path: Path) -> None:
    refusal = pytest.raises(FailedPrecondition, match=r"services\.runtime\.migrate")
    with database("sqlite", tmp_path) as url, refusal:
        await require_current(url)
