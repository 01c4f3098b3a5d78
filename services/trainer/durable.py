"""What survives any crash."""

import os
from pathlib import Path


def make_durable(path: Path) -> None:
    """A file's bytes, or the names in a folder."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
