"""Examples out of files: what is said before, what is to be learnt. Errors name file and line."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from services.core.errors import InvalidRequest
from services.trainer.jobs import DataKind

Message = Mapping[str, str]
Row = Mapping[str, Any]

JSONL, CSV = ".jsonl", ".csv"
MOST_LINE_BYTES = 8 << 20
ROLES = ("system", "user", "assistant", "tool")

_NEEDED = {
    DataKind.CHAT: ("messages",),
    DataKind.INSTRUCTION: ("instruction", "output"),
    DataKind.COMPLETION: ("prompt", "completion"),
    DataKind.CLASSIFICATION: ("text", "label"),
    DataKind.TEXT: ("text",),
}


@dataclass(frozen=True, slots=True)
class Example:
    """`target` follows `messages` as the assistant's answer; without messages it follows `prompt`
    as it is."""

    line: int
    target: str
    messages: tuple[Message, ...] = ()
    prompt: str = ""


def read_examples(path: Path, name: str) -> tuple[DataKind, Iterator[Example]]:
    """`name`: what the file is called. Raises InvalidRequest, also while they are read."""
    rows = _rows(path, name)
    first = next(rows, None)
    if first is None:
        raise bad(name, 0, "has no rows")
    kind = _kind(name, *first)

    def every() -> Iterator[Example]:
        yield from _examples(kind, name, *first)
        for line, row in rows:
            yield from _examples(kind, name, line, row)

    return kind, every()


def bad(name: str, line: int, what: str) -> InvalidRequest:
    """`line` 0: the file as a whole."""
    return InvalidRequest.of("data", f"{name}:{line}: {what}" if line else f"{name}: {what}")


def _rows(path: Path, name: str) -> Iterator[tuple[int, Row]]:
    """With the number of the line that each ends on."""
    suffix = Path(name).suffix.lower()
    if suffix not in (JSONL, CSV):
        raise bad(name, 0, f"must end with {JSONL} or {CSV}")
    with path.open("rb") as file:
        lines = _Lines(file, name)
        yield from _csv(lines, name) if suffix == CSV else _jsonl(lines, name)


class _Lines:
    """Of text, each with its end. `number`: of the one that was read last."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MOST_LINE_BYTES + 1):
            self.number += 1
            if len(line) > MOST_LINE_BYTES:
                raise bad(self._name, self.number, f"is longer than {MOST_LINE_BYTES} bytes")
            try:
                yield line.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise bad(self._name, self.number, "is not UTF-8 text") from error


def _jsonl(lines: _Lines, name: str) -> Iterator[tuple[int, Row]]:
    for text in lines:
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise bad(name, lines.number, f"is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise bad(name, lines.number, "must be a JSON object")
        yield lines.number, row


def _csv(lines: _Lines, name: str) -> Iterator[tuple[int, Row]]:
    reader = csv.DictReader(lines, strict=True)
    try:
        for row in reader:
            if None in row:
                raise bad(name, lines.number, "has more fields than line 1 has columns")
            yield lines.number, row
    except csv.Error as error:
        raise bad(name, lines.number, f"is not CSV: {error}") from error


def _kind(name: str, line: int, row: Row) -> DataKind:
    for kind, needed in _NEEDED.items():
        if all(column in row for column in needed):
            return kind
    forms = "; ".join(" and ".join(needed) for needed in _NEEDED.values())
    raise bad(name, line, f"has {', '.join(map(repr, row)) or 'nothing'}; it must have {forms}")


def _examples(kind: DataKind, name: str, line: int, row: Row) -> Iterator[Example]:
    def text(column: str, *, optional: bool = False) -> str:
        value = row.get(column, "" if optional else None)
        if value is None:
            raise bad(name, line, f"{column!r} is missing")
        if column == "label" and isinstance(value, int):
            value = str(value)
        if not isinstance(value, str):
            raise bad(name, line, f"{column!r} must be text")
        if not (value.strip() or optional):
            raise bad(name, line, f"{column!r} is empty")
        return value

    match kind:
        case DataKind.CHAT:
            yield from _answers(name, line, row.get("messages"))
        case DataKind.INSTRUCTION:
            asked = "\n\n".join(filter(None, [text("instruction"), text("input", optional=True)]))
            yield Example(line, text("output"), (_user(asked),))
        case DataKind.COMPLETION:
            yield Example(line, text("completion"), prompt=text("prompt"))
        case DataKind.CLASSIFICATION:
            yield Example(line, text("label"), (_user(text("text")),))
        case DataKind.TEXT:
            yield Example(line, text("text"))


def _answers(name: str, line: int, messages: Any) -> Iterator[Example]:
    """One for every answer of the assistant, after what was said before it."""
    if not isinstance(messages, list) or not messages:
        raise bad(name, line, "'messages' must be a list of messages")
    said: list[Message] = []
    answers = 0
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise bad(name, line, f"{at} must have a role of {', '.join(ROLES)}")
        content = message.get("content")
        if not isinstance(content, str):
            raise bad(name, line, f"the content of {at} must be text")
        if message["role"] == "assistant":
            if not said or not content.strip():
                raise bad(name, line, f"{at} answers nothing, or is empty")
            yield Example(line, content, tuple(said))
            answers += 1
        said.append({"role": message["role"], "content": content})
    if not answers:
        raise bad(name, line, "the assistant says nothing in it")


def _user(content: str) -> Message:
    return {"role": "user", "content": content}
