"""OpenAI's tools and tool_choice."""

from typing import Any, Literal

from pydantic import Field

from services.gateway.openai_fields import Fields, Flag
from services.gateway.tools import Function, Must, Tools, offered


class FunctionDefinition(Fields):
    name: str = Field(description="1 to 64 letters, digits, underscores and hyphens.")
    description: str = ""
    parameters: dict[str, Any] | None = Field(
        None, description="JSON schema of the object that it takes; without one it takes nothing."
    )
    strict: Flag = Field(
        False,
        description="Ignored: arguments always follow the schema where tool_choice demands a call, "
        "and never surely where it does not.",
    )


class Tool(Fields):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Fields):
    name: str


class NamedChoice(Fields):
    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


def tools_of(tools: list[Tool], choice: ToolChoice | None, *, parallel: bool) -> Tools | None:
    """Raises InvalidRequest as `offered` does."""
    functions = [
        Function(tool.function.name, tool.function.description, tool.function.parameters)
        for tool in tools
    ]
    must = choice.function.name if isinstance(choice, NamedChoice) else Must(choice or "auto")
    return offered(functions, must, parallel=parallel, path="tools[{}].function")
