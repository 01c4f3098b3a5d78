"""The child process that renders chat templates: a template is a program, and may not end.

Reads one JSON object a line ({"template", "variables"}), writes one ({"text"} or {"error"}).
"""

import json
import resource
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_MEMORY = 1 << 30


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(asked: dict[str, Any]) -> dict[str, str]:
    try:
        return {"text": _compile(asked["template"]).render(**asked["variables"])}
    except jinja2.TemplateError as error:
        return {"error": str(error)}
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        return {"error": str(error)}
    except (MemoryError, RecursionError):
        return {"error": "the chat template used too much memory"}


@lru_cache(maxsize=16)
def _compile(template: str) -> jinja2.Template:
    """With the functions and settings that Hugging Face templates expect."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


if __name__ == "__main__":
    main()
