"""Debian's package descriptions, labelled by section; examples/corpus/build.py makes the file."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from services.trainer.examples import bad

DESCRIPTIONS = Path(__file__).parent.parent.parent / "examples" / "corpus" / "descriptions.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Row:
    """`label`: the section; `source`: the team, or the person, that maintains the package."""

    package: str
    text: str
    label: str
    source: str


def read_corpus(path: Path = DESCRIPTIONS) -> list[Row]:
    """Packed or not. Raises InvalidRequest that names file and line."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        rows = [_row(path.name, line, text) for line, text in _lines(path.name, file)]
    if not rows:
        raise bad(path.name, 0, "has no rows")
    seen: dict[str, int] = {}
    for line, row in enumerate(rows, 1):
        if (first := seen.setdefault(row.package, line)) != line:
            raise bad(path.name, line, f"has {row.package!r}, as line {first} has")
    return rows


def _lines(name: str, file: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    line = 0
    try:
        for line, raw in enumerate(file, 1):
            yield line, raw.decode()
    except UnicodeDecodeError as error:
        raise bad(name, line, "is not UTF-8 text") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise bad(name, line + 1, f"cannot be unpacked: {error}") from error


def _row(name: str, line: int, text: str) -> Row:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad(name, line, f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise bad(name, line, "must be a JSON object")
    for column in (field.name for field in fields(Row)):
        value = found.get(column)
        if not isinstance(value, str) or not value.strip():
            raise bad(name, line, f"{column!r} must be text, and not empty")
    return Row(**{field.name: found[field.name] for field in fields(Row)})
