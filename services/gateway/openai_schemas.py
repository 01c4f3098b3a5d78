"""What the OpenAI API answers, for its document. openai_responses writes it."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class CachedTokens(BaseModel):
    cached_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Function(BaseModel):
    name: str
    arguments: str = Field(description="JSON, as the model wrote it; check it before you call.")


class Call(BaseModel):
    id: str
    type: Literal["function"]
    function: Function


class Message(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[Call] | None = None


class Likely(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class Position(Likely):
    top_logprobs: list[Likely]


class ChatLogprobs(BaseModel):
    content: list[Position]
    refusal: None


class ChatChoice(BaseModel):
    index: int
    message: Message
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class _Completion(BaseModel):
    id: str
    created: int = Field(description="Seconds since 1970.")
    model: str
    system_fingerprint: str = Field(description="Of the base model and the adapter version.")
    service_tier: Literal["default", "flex", "priority"] = Field(description="That it had.")
    usage: Usage


class ChatCompletion(_Completion):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(_Completion):
    object: Literal["text_completion"]
    choices: list[TextChoice]


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int = Field(description="Seconds since 1970.")
    owned_by: str = Field(description='A tenant, or "lorikeet" for base models.')
    root: str = Field(description="The version that the name means now.")
    parent: str | None = Field(description="The base model under an adapter.")
    max_model_len: int | None = Field(description="Most tokens of prompt and completion.")


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class Health(BaseModel):
    status: Literal["ok"]


class Problem(BaseModel):
    message: str
    type: str
    param: str | None = Field(description="The field that is wrong.")
    code: str | None = Field(description="Stable, for programs.")


class Error(BaseModel):
    error: Problem


_REFUSALS = {
    400: "A field is wrong; `param` names it.",
    401: "There is no key, or it does not work.",
    403: "The key works, for something else.",
    404: "There is no such model, or it is somebody else's.",
    405: "Another method.",
    409: "The system is not in the state that this needs.",
    413: "The body is too long.",
    422: "Something that was stored is damaged.",
    429: "More than there is room or quota for.",
    500: "Something broke; the x-request-id is in the logs.",
    503: "Try again after Retry-After seconds.",
    504: "It took longer than it may.",
}


def refusals(error: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`; none: all."""
    return {
        status: {"model": error, "description": text}
        for status, text in _REFUSALS.items()
        if not statuses or status in statuses
    }


def streamed(whole: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """An answer that can also come as events."""
    events = {
        "schema": {
            "type": "object",
            "description": "One event.",
            "properties": {"data": {"type": "string", "description": "A chunk, or [DONE]."}},
            "required": ["data"],
        },
    }
    return {
        200: {
            "model": whole,
            "description": "The answer; with stream: true as server-sent events, of which an error "
            "is the last.",
            "content": {"text/event-stream": events},
        }
    }
