"""The child process that renders chat templates: a template is a program, and may not end.

Reads one JSON object a line ({"template", "variables"}), writes one ({"text"} or {"error"}). What
it reads may have "plain_messages": instead of the messages, for a template that knows no tools.
"""

import json
import resource
import sys
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_MEMORY = 1 << 30


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(asked: dict[str, Any]) -> dict[str, str]:
    template, variables = asked["template"], asked["variables"]
    try:
        if "plain_messages" in asked and not _knows_tools(template):
            variables = variables | {"messages": asked["plain_messages"], "tools": None}
        return {"text": _compile(template).render(**variables)}
    except jinja2.TemplateError as error:
        return {"error": str(error)}
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        return {"error": str(error)}
    except (MemoryError, RecursionError):
        return {"error": "the chat template used too much memory"}


@lru_cache(maxsize=16)
def _compile(template: str) -> jinja2.Template:
    return _environment().from_string(template)


@lru_cache(maxsize=16)
def _knows_tools(template: str) -> bool:
    """Whether it reads the variable `tools`, as transformers finds out."""
    return "tools" in meta.find_undeclared_variables(_environment().parse(template))


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    """With the functions and settings that Hugging Face templates expect."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


class _Generation(Extension):
    """{% generation %} marks what the assistant said, for training; here it only says it."""

    tags = {"generation"}  # noqa: RUF012  # jinja2's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


if __name__ == "__main__":
    main()
