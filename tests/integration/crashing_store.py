"""A real adapter store that kills itself with SIGKILL at a point of its work."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from services.adapter_store import weights
from services.adapter_store.__main__ import main
from services.adapter_store.blobs import Blobs
from services.adapter_store.incoming import Incoming, Linked
from services.adapter_store.receiving import Growing
from services.adapter_store.records import Chunk, Upload
from services.adapter_store.repositories.aliases import SqlAliasRepository
from services.adapter_store.repositories.blobs import SqlBlobRepository
from services.adapter_store.repositories.changes import SqlChangeRepository
from services.adapter_store.repositories.uploads import SqlUploadRepository
from services.adapter_store.repositories.versions import SqlVersionRepository
from services.adapter_store.staging import Staging
from services.adapter_store.tensors import FileTensor
from services.adapter_store.uploads import Uploads
from services.runtime.server import run
from tests.integration.dying import deadly

LEASE_SECONDS = 1.0

POINTS: dict[str, tuple[type, str]] = {
    "open upload": (SqlUploadRepository, "open_upload"),
    "append": (Staging, "append"),
    "sync": (Staging, "sync"),
    "admit": (Uploads, "admit"),
    "receive": (Growing, "add"),
    "write chunk": (Staging, "_add"),
    "lease": (SqlBlobRepository, "lease"),
    "read tensor": (FileTensor, "pieces"),  # while it is checked, and while it is stored
    "write blob": (Incoming, "write"),
    "link blob": (Linked, "promote"),
    "promote": (Blobs, "promote"),
    "stored": (SqlBlobRepository, "stored"),
    "commit version": (SqlUploadRepository, "commit"),
    "discard": (Staging, "discard"),
    "move": (SqlAliasRepository, "move"),
    "delete": (SqlVersionRepository, "delete_version"),
    "purge versions": (SqlVersionRepository, "purge"),
    "purge uploads": (SqlUploadRepository, "purge"),
    "purge changes": (SqlChangeRepository, "purge"),
    "discard blobs": (SqlBlobRepository, "discard_unreachable"),
    "delete blob": (Blobs, "delete"),
    "forget garbage": (SqlBlobRepository, "forget_garbage"),
    "sql commit": (DefaultDialect, "do_commit"),
    "sql statement": (DefaultDialect, "do_execute"),
}
WHEN = ("before", "after", "torn")  # torn: in the middle of what "append" writes


def serve(environment: dict[str, str], point: str | None, when: str, nth: int) -> None:
    """Until it is killed; by itself at the nth time that it comes to the point."""
    os.environ.update(environment)
    weights.LEASE = timedelta(seconds=LEASE_SECONDS)
    if point is not None:
        owner, name = POINTS[point]
        work = getattr(owner, name)
        deadly_one = _torn(work, nth) if when == "torn" else deadly(work, when, nth, _die)
        setattr(owner, name, deadly_one)
    run(main)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _torn(append: Callable[..., Any], nth: int) -> Callable[..., Any]:
    """Dies in the middle of what the nth of them writes."""
    left = nth

    @wraps(append)
    def now(*given: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            _tear(*given)
            _die()
        return append(*given)

    return now


def _tear(staging: Staging, upload: Upload, chunk: Chunk) -> None:
    with staging._path(upload.id).open("ab") as file:
        file.write(chunk.data[: len(chunk.data) // 2])
        os.fsync(file.fileno())
