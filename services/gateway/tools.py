"""Functions that a model may call: which were offered, whether it must, and the grammar if so."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from services.core.errors import FieldViolation, InvalidRequest
from services.core.types import Constraint, ConstraintKind
from services.gateway.sampling import Asked

MOST_TOOLS = 128
MOST_CALLS = 16
"""That one answer is made to hold at most, where calls are demanded."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

# As workers have it for a schema alone: free white space is where small models lose themselves.
_COMPACT = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    """JSON schema of the object that it takes; None: it takes nothing."""

    def shown(self) -> dict[str, Any]:
        """As chat templates expect a tool."""
        function: dict[str, Any] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        if self.parameters is not None:
            function["parameters"] = self.parameters
        return {"type": "function", "function": function}

    def arguments_schema(self) -> dict[str, Any]:
        if self.parameters is None:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return {"type": "object", **self.parameters}


class Must(Enum):
    """What a client says about calls, beside the name of the function that must be called."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions of one request, checked."""

    functions: tuple[Function, ...]
    callable: tuple[Function, ...]
    must: bool  # the answer is calls, at least one, and nothing else
    parallel: bool

    @property
    def names(self) -> frozenset[str]:
        return frozenset(function.name for function in self.callable)

    def constrained(self, asked: Asked) -> Asked:
        """With the constraint that these tools need.

        Raises InvalidRequest for a constraint that an answer with calls cannot also follow.
        """
        if not self.must and asked.constraint is None:
            return asked
        if asked.constraint is not None and asked.constraint.kind is not ConstraintKind.JSON_SCHEMA:
            raise InvalidRequest.of("constraint", "with tools it can only be a JSON schema")
        schema = None if self.must or asked.constraint is None else asked.constraint.text
        return replace(asked, constraint=self._grammar(schema))

    def _grammar(self, answer: str | None) -> Constraint:
        """Of a JSON list of calls; or of an `answer` that follows this schema."""
        more = MOST_CALLS - 1 if self.parallel else 0
        calls = f'"[" call (", " call){{0,{more}}} "]"' if more else '"[" call "]"'
        start = calls if answer is None else f"{calls} | answer"
        rules = [f"start: {start}", f"call: {' | '.join(self._calls())}"]
        rules += [
            f"arguments{index}: {_json(function.arguments_schema())}"
            for index, function in enumerate(self.callable)
        ]
        if answer is not None:
            rules.append(f"answer: {_json(_object(answer))}")
        return Constraint(ConstraintKind.GRAMMAR, "\n".join(rules))

    def _calls(self) -> Iterator[str]:
        for index, function in enumerate(self.callable):
            head = json.dumps(f'{{"name": "{function.name}", "arguments": ')
            yield f'{head} arguments{index} "}}"'


def offered(
    functions: Sequence[Function], choice: Must | str, *, parallel: bool, path: str = "tools[{}]"
) -> Tools | None:
    """None if nothing can be called. Raises InvalidRequest that names every wrong field; `path` is
    where the request has a function."""
    wrong = list(_wrong(functions, path))
    if isinstance(choice, str) and choice not in {function.name for function in functions}:
        wrong.append(FieldViolation("tool_choice", f"there is no function {choice!r} in tools"))
    if choice is Must.REQUIRED and not functions:
        wrong.append(FieldViolation("tool_choice", "requires a call, but there are no tools"))
    if wrong:
        raise InvalidRequest(wrong)
    if choice is Must.NONE or not functions:
        return None
    if isinstance(choice, str):
        named = tuple(function for function in functions if function.name == choice)
        return Tools(tuple(functions), named, must=True, parallel=False)
    return Tools(tuple(functions), tuple(functions), choice is Must.REQUIRED, parallel)


def _wrong(functions: Sequence[Function], path: str) -> Iterator[FieldViolation]:
    if len(functions) > MOST_TOOLS:
        yield FieldViolation("tools", f"may be at most {MOST_TOOLS}")
    seen = set()
    for index, function in enumerate(functions):
        at = path.format(index)
        if not _NAME.fullmatch(function.name):
            said = "must be 1 to 64 letters, digits, underscores and hyphens"
            yield FieldViolation(f"{at}.name", said)
        if function.name in seen:
            yield FieldViolation(f"{at}.name", "is there twice")
        seen.add(function.name)
        if (function.parameters or {}).get("type", "object") != "object":
            said = 'must be a schema of an object ("type": "object")'
            yield FieldViolation(f"{at}.parameters", said)


def _json(schema: Any) -> str:
    if isinstance(schema, dict):
        schema = {"x-guidance": _COMPACT, **schema}
    return f"%json {json.dumps(schema)}"


def _object(schema: str) -> Any:
    try:
        return json.loads(schema)
    except ValueError as error:
        raise InvalidRequest.of("constraint", "is not JSON") from error
