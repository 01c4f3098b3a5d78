"""Results as a table or as JSON; errors as one sentence and an exit code."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from services.core.errors import PermissionDenied, ServingError

console = Console()
problems = Console(stderr=True)

VERSION_COLUMNS = (
    "adapter", "number", "base_model", "max_rank", "module_count", "size_bytes", "digest",
)  # fmt: skip

EXIT_REFUSED = 1
EXIT_UNREACHABLE = 3
EXIT_NOT_ALLOWED = 4

_EXIT_CODES = {
    grpc.StatusCode.UNAVAILABLE: EXIT_UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: EXIT_UNREACHABLE,
    grpc.StatusCode.UNAUTHENTICATED: EXIT_NOT_ALLOWED,
    grpc.StatusCode.PERMISSION_DENIED: EXIT_NOT_ALLOWED,
}


class Output(Enum):
    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print the result.")]


def show(messages: Sequence[Message], output: Output, *columns: str) -> None:
    """One row a message; `columns` are dotted field paths."""
    rows = [MessageToDict(message, preserving_proto_field_name=True) for message in messages]
    if output is Output.JSON:
        print_json(rows)
        return
    table = Table(*_headings(columns), box=None, header_style="bold")
    for message, row in zip(messages, rows, strict=True):
        table.add_row(*(_cell(row, column, message) for column in columns))
    console.print(table)


def progress() -> Progress:
    """Bars of bytes, gone when done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=problems,
        transient=True,
    )


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def enum_word(enum: Any, value: str) -> str:
    """ALIAS_MOVE_KIND_PROMOTE as "promote"; `enum`: its descriptor."""
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper()
    return value.removeprefix(f"{prefix}_").lower().replace("_", " ")


def _headings(columns: Sequence[str]) -> list[str]:
    """The fields' own names, with the one above where that alone would not tell."""
    names = [column.split(".") for column in columns]
    own = Counter(name[-1] for name in names)
    return [" ".join(name[-2:]) if own[name[-1]] > 1 else name[-1] for name in names]


def _cell(row: dict[str, Any], path: str, message: Message) -> str:
    value: Any = row
    for part in path.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    if value in ({}, None):
        return "-"
    field = message.DESCRIPTOR.fields_by_name.get(path)
    if field is not None and field.enum_type is not None:
        return enum_word(field.enum_type, value)
    return str(len(value)) if isinstance(value, list) else str(value)


@contextmanager
def one_sentence() -> Iterator[None]:
    """An error, said once; the exit code tells what kind it was."""
    try:
        yield
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        text = error.details() or code.name
        if code is grpc.StatusCode.UNAVAILABLE and "connect" in text.lower():
            text = "the server cannot be reached; is it running?"
        _say(text)
        raise SystemExit(_EXIT_CODES.get(code, EXIT_REFUSED)) from error
    except (OSError, ServingError) as error:
        _say(str(error))
        denied = isinstance(error, PermissionDenied)
        raise SystemExit(EXIT_NOT_ALLOWED if denied else EXIT_REFUSED) from error


def notice(text: str) -> None:
    """Beside the result, which stays alone on standard output."""
    problems.print(f"[yellow]note:[/yellow] {escape(text)}", highlight=False, soft_wrap=True)


def _say(text: str) -> None:
    problems.print(f"[red]error:[/red] {escape(text)}", highlight=False, soft_wrap=True)
