"""A conversation, as chat templates read it: with tools, or in plain messages for those that know
none.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.core.errors import FieldViolation, InvalidRequest
from services.gateway.strict_json import loads
from services.gateway.tools import Function

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model made; its arguments are a JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: str
    content: str | None  # None: the message is its calls
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[ChatMessage, ...]
    functions: tuple[Function, ...] = ()

    def checked(self) -> "Conversation":
        """Raises InvalidRequest that names every wrong message."""
        if not self.messages:
            raise InvalidRequest.of("messages", "must not be empty")
        wrong = [
            violation
            for index, message in enumerate(self.messages)
            for violation in _wrong(f"messages[{index}]", message)
        ]
        if wrong:
            raise InvalidRequest(wrong)
        return self

    @property
    def uses_tools(self) -> bool:
        return bool(self.functions) or any(
            message.role == "tool" or message.tool_calls for message in self.messages
        )

    def variables(self) -> dict[str, Any]:
        """What transformers gives to a template: arguments are objects, no tools are None."""
        return {
            "messages": [_shown(index, message) for index, message in enumerate(self.messages)],
            "tools": [function.shown() for function in self.functions] or None,
            "documents": None,
            "add_generation_prompt": True,
        }

    def plain_messages(self) -> list[dict[str, str]]:
        """For templates that know no tools, in the form of Hermes 2 Pro and Qwen 2.5: functions in
        <tools> in the system message, calls in <tool_call>, results in <tool_response> by the user.
        """
        plain = [_plain(message) for message in self.messages]
        if not self.functions:
            return plain
        if plain[0]["role"] != "system":
            return [{"role": "system", "content": _instructions(self.functions)}, *plain]
        plain[0]["content"] += "\n\n" + _instructions(self.functions)
        return plain


def _wrong(at: str, message: ChatMessage) -> Iterator[FieldViolation]:
    if message.role not in ROLES:
        yield FieldViolation(f"{at}.role", f"must be one of {', '.join(ROLES)}")
    if message.tool_calls and message.role != "assistant":
        yield FieldViolation(f"{at}.tool_calls", "only goes with the role assistant")
    if message.content is None and not message.tool_calls:
        yield FieldViolation(f"{at}.content", "is missing")


def _shown(index: int, message: ChatMessage) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": _arguments(
                        call, f"messages[{index}].tool_calls[{at}].function.arguments"
                    ),
                },
            }
            for at, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id:
        shown["tool_call_id"] = message.tool_call_id
    if message.name:
        shown["name"] = message.name
    return shown


def _arguments(call: ToolCall, field: str) -> dict[str, Any]:
    found = loads(call.arguments or "{}", field)
    if not isinstance(found, dict):
        raise InvalidRequest.of(field, "must be a JSON object")
    return found


def _plain(message: ChatMessage) -> dict[str, str]:
    text = message.content or ""
    if message.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{text}\n</tool_response>"}
    calls = [
        f'<tool_call>\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}\n'
        "</tool_call>"
        for call in message.tool_calls
    ]
    return {"role": message.role, "content": "\n".join([text, *calls] if text else calls)}


def _instructions(functions: Sequence[Function]) -> str:
    listed = "\n".join(json.dumps(function.shown(), ensure_ascii=False) for function in functions)
    return (
        f"You can call these functions:\n<tools>\n{listed}\n</tools>\n"
        "To call one, write its name and a JSON object of arguments in this form:\n"
        '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>'
    )
