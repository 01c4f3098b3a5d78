"""Brings a database to the newest revision: python -m services.runtime.migrate"""

import asyncio
import os
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine

from services.core.errors import FailedPrecondition

FOLDER = Path(__file__).parent.parent.parent / "migrations"
VARIABLE = "LORIKEET_DATABASE_URL"


def configuration(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def migrate(url: str) -> None:
    """Upgrade to the newest revision; safe to repeat."""
    command.upgrade(configuration(url), "head")


async def require_current(url: str) -> None:
    """Raises FailedPrecondition unless the database is at the newest revision."""
    wanted = ScriptDirectory.from_config(configuration(url)).get_current_head()
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(
                lambda sync: MigrationContext.configure(sync).get_current_revision()
            )
    finally:
        await engine.dispose()
    if found != wanted:
        raise FailedPrecondition(
            f"the database is at revision {found}, this version needs {wanted}: "
            f"run {VARIABLE}=... python -m services.runtime.migrate"
        )


if __name__ == "__main__":
    if VARIABLE not in os.environ:
        sys.stderr.write(f"set {VARIABLE} to the database's SQLAlchemy URL\n")
        raise SystemExit(2)
    migrate(os.environ[VARIABLE])
    asyncio.run(require_current(os.environ[VARIABLE]))
