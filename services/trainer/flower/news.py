"""What the ServerApp tells whoever drives it: lines in a file of the job's folder."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from services.trainer.task import News, news_from_json, news_to_json

LOOK_SECONDS = 0.2


def tell(file: Path, news: News) -> None:
    """What this returned from survives any crash."""
    with file.open("a") as out:
        out.write(news_to_json(news) + "\n")
        out.flush()
        os.fsync(out.fileno())


def follow(file: Path, is_alive: Callable[[], bool]) -> Iterator[News]:
    """What is told, as long as who tells it is alive; and what it told before it ended."""
    read = 0
    while True:
        alive = is_alive()  # before reading: nothing comes after its end
        for line in _lines(file, read):
            read += len(line)
            yield news_from_json(line)
        if not alive:
            return
        time.sleep(LOOK_SECONDS)


def _lines(file: Path, start: int) -> list[bytes]:
    """Whole ones."""
    if not file.exists():
        return []
    with file.open("rb") as opened:
        opened.seek(start)
        lines = opened.read().splitlines(keepends=True)
    return [line for line in lines if line.endswith(b"\n")]
