"""JSON that everybody reads alike; what parsers disagree about is refused (RFC 8259, I-JSON)."""

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from services.core.errors import InvalidRequest

BODY = "body"
DEEPEST = 64


def loads(data: bytes | str, field: str) -> Any:
    """Raises InvalidRequest, naming `field` (or in a body the path): for anything but UTF-8, for a
    key that an object has twice, NaN, infinity, half a surrogate pair, and more than 64 levels."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise InvalidRequest.of(field, "is not UTF-8") from error
    except RecursionError as error:
        raise InvalidRequest.of(field, _TOO_DEEP) from error
    except ValueError as error:
        raise InvalidRequest.of(field, f"is not JSON: {error}") from error
    _check(value, field)
    return value


def _check(value: Any, field: str) -> None:
    left: list[tuple[tuple[str | int, ...], Any]] = [((), value)] if _is_open(value) else []
    while left:
        path, found = left.pop()
        if isinstance(found, str):
            if not _is_text(found):
                raise InvalidRequest.of(_named(field, path), "is not valid Unicode text")
        elif len(path) >= DEEPEST:
            raise InvalidRequest.of(field, _TOO_DEEP)
        elif isinstance(found, dict):
            if not all(map(_is_text, found)):
                raise InvalidRequest.of(_named(field, path), "is not valid Unicode text")
            left += [((*path, key), inner) for key, inner in found.items() if _is_open(inner)]
        else:
            left += [((*path, at), inner) for at, inner in enumerate(found) if _is_open(inner)]


def _named(field: str, path: Sequence[str | int]) -> str:
    return (path_text(path) if field == BODY else "") or field


def path_text(path: Sequence[str | int]) -> str:
    """ "messages[0].content" """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _is_open(value: Any) -> bool:
    return isinstance(value, str | dict | list)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {twice!r} twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_TOO_DEEP = f"is nested more than {DEEPEST} levels deep"
