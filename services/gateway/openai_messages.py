"""OpenAI's messages."""

from typing import Literal

from pydantic import Field

from services.core.errors import InvalidRequest
from services.gateway.conversation import ChatMessage, ToolCall
from services.gateway.openai_fields import Fields

_ROLE_NAMES = {"developer": "system"}
_TEXT_PARTS = ("text", "input_text")


class Part(Fields):
    type: str = Field(description="text (or input_text); nothing else is supported.")
    text: str | None = None


class CalledFunction(Fields):
    name: str
    arguments: str = Field("", description="A JSON object, as text.")


class MadeCall(Fields):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Fields):
    role: str = Field(description="system (or developer), user, assistant or tool.")
    content: str | list[Part] | None = Field(
        None, description="Only an assistant's message that has tool_calls can do without."
    )
    tool_calls: list[MadeCall] = Field([], description="Calls that the assistant made.")
    tool_call_id: str = Field("", description="Of a tool's message: the call that it answers.")
    name: str = ""
    function_call: CalledFunction | None = Field(None, deprecated=True, description="Refused.")

    def to_chat(self, index: int) -> ChatMessage:
        if self.function_call is not None:
            said = "is not supported: use tool_calls"
            raise InvalidRequest.of(f"messages[{index}].function_call", said)
        return ChatMessage(
            _ROLE_NAMES.get(self.role, self.role),
            self._text(f"messages[{index}].content"),
            tuple(
                ToolCall(call.id, call.function.name, call.function.arguments)
                for call in self.tool_calls
            ),
            self.tool_call_id,
            self.name,
        )

    def _text(self, field: str) -> str | None:
        if not isinstance(self.content, list):
            return self.content
        texts = [part.text for part in self.content if part.type in _TEXT_PARTS]
        if len(texts) < len(self.content) or None in texts:
            raise InvalidRequest.of(field, "only parts with text are supported")
        return "".join(text for text in texts if text is not None)
