"""What an answer must look like, in the words of OpenAI's clients and of vLLM's."""

import json
from typing import Any, Literal

from pydantic import Field

from services.core.errors import InvalidRequest
from services.core.types import Constraint, ConstraintKind
from services.gateway.openai_fields import Fields, Flag


class JsonSchemaFormat(Fields):
    name: str = ""
    schema_: dict[str, Any] | Flag = Field(True, alias="schema")
    strict: Flag | None = None


class ResponseFormat(Fields):
    """OpenAI's."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    def constraint(self) -> Constraint | None:
        if self.type == "text":
            return None
        if self.type == "json_object":
            return _schema({"type": "object"})
        if self.json_schema is None:
            raise InvalidRequest.of("response_format.json_schema", "is missing")
        return _schema(self.json_schema.schema_)


class StructuredOutputs(Fields):
    """vLLM's; exactly one is needed."""

    json_: dict[str, Any] | Flag | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: Flag | None = None

    def constraint(self) -> Constraint:
        found = []
        if self.json_ is not None:
            found.append(_schema(self.json_))
        if self.json_object:
            found.append(_schema({"type": "object"}))
        if self.regex is not None:
            found.append(Constraint(ConstraintKind.REGEX, self.regex))
        if self.choice:
            either = " | ".join(json.dumps(text, ensure_ascii=False) for text in self.choice)
            found.append(Constraint(ConstraintKind.GRAMMAR, f"start: {either}"))
        if self.grammar is not None:
            found.append(Constraint(ConstraintKind.GRAMMAR, self.grammar))
        if len(found) != 1:
            raise InvalidRequest.of(
                "structured_outputs", "give one of json, json_object, regex, choice and grammar"
            )
        return found[0]


def _schema(schema: dict[str, Any] | bool | str) -> Constraint:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return Constraint(ConstraintKind.JSON_SCHEMA, text)
