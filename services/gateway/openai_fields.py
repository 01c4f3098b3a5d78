"""Kinds of fields in request bodies: a number is a number, not a text or a boolean that reads like
one; what has a default may also be null.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictBool, model_validator


def _number(value: Any) -> Any:
    if isinstance(value, str | bool):
        raise ValueError("must be a number")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Flag = StrictBool


def _with_nulls(schema: dict[str, Any]) -> None:
    """Says in the document that null asks for the default."""
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        kinds = field.get("anyOf", [])
        if name in required or {"type": "null"} in kinds:
            continue
        about = {key: field.pop(key) for key in ("title", "description", "default") if key in field}
        schema["properties"][name] = {"anyOf": [*(kinds or [field]), {"type": "null"}], **about}


class Fields(BaseModel):
    """Unknown fields are ignored, as OpenAI's clients expect; null asks for the default."""

    model_config = ConfigDict(extra="ignore", json_schema_extra=_with_nulls)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value is not None}


def between(least: float, most: float | None = None) -> dict[str, Any]:
    """For the document; what is refused is decided with the rest of what was asked."""
    return {"minimum": least} if most is None else {"minimum": least, "maximum": most}
