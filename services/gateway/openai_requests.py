"""OpenAI's request bodies: what is understood, what is refused by name, what is ignored."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.core.errors import FieldViolation, InvalidRequest
from services.core.types import Constraint
from services.gateway.chat import ChatMessage
from services.gateway.openai_constraints import ResponseFormat, StructuredOutputs
from services.gateway.sampling import Asked

MOST_CHOICES = 16


class StreamOptions(BaseModel):
    include_usage: bool = False


class _Body(BaseModel):
    """Fields of both endpoints. Unknown fields are ignored, as OpenAI's clients expect; null asks
    for the default.
    """

    model_config = ConfigDict(extra="allow")

    model: str = Field(description="A base model, an adapter, or adapter@version.")
    max_tokens: int | None = None
    temperature: float = Field(1.0, description="0 to 2; 0 is greedy.")
    top_p: float = Field(1.0, description="More than 0, at most 1.")
    top_k: int = Field(0, description="An extension: only the k most likely tokens; 0: any.")
    n: int = Field(1, description=f"Choices to make, 1 to {MOST_CHOICES}.")
    stop: str | list[str] = []
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    presence_penalty: float = Field(0.0, description="-2 to 2.")
    frequency_penalty: float = Field(0.0, description="-2 to 2.")
    logit_bias: dict[int, float] = Field({}, description="By token id, -100 to 100.")
    response_format: ResponseFormat | None = Field(
        None, description="text, json_object, or json_schema with a schema that the answer matches."
    )
    min_p: float = Field(
        0.0,
        description="An extension: only tokens at least this share as likely as the likeliest.",
    )
    repetition_penalty: float = Field(1.0, description="An extension: more than 0, at most 10.")
    stop_token_ids: list[int] = Field([], description="An extension: tokens that end the answer.")
    structured_outputs: StructuredOutputs | None = Field(
        None, description="An extension: a JSON schema, regex, choice or Lark grammar to match."
    )
    ignore_eos: bool = Field(False, description="An extension: go on past end-of-text tokens.")
    first_token_within_ms: int | None = Field(
        None, description="An extension: refuse at once (503, too_late) what would take longer."
    )
    share_prefix: bool = Field(
        False, description="An extension: share cached base-model prefixes with other tenants."
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value is not None}

    def refuse_unsupported(self) -> None:
        """Raises InvalidRequest for fields that would change the answer and are not honoured."""
        extra = self.model_extra or {}
        wrong = [
            FieldViolation(name, "is not supported")
            for name, harmless in _CHANGES_THE_ANSWER.items()
            if extra.get(name) not in (None, *harmless)
        ]
        if not 1 <= self.n <= MOST_CHOICES:
            wrong.append(FieldViolation("n", f"must be 1 to {MOST_CHOICES}"))
        if self.stream_options is not None and not self.stream:
            wrong.append(FieldViolation("stream_options", "only goes with stream: true"))
        if wrong:
            raise InvalidRequest(wrong)

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def _constraint(self) -> Constraint | None:
        asked = [
            form.constraint()
            for form in (self.response_format, self.structured_outputs)
            if form is not None
        ]
        wanted = [constraint for constraint in asked if constraint is not None]
        if len(wanted) > 1:
            raise InvalidRequest.of("structured_outputs", "does not go with response_format")
        return wanted[0] if wanted else None

    def _asked(self, *, max_tokens: int | None, logprobs: bool, top_logprobs: int) -> Asked:
        return Asked(
            max_tokens=max_tokens,
            seed=self.seed,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=tuple(self.logit_bias.items()),
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
            stop_tokens=tuple(self.stop_token_ids),
            ignore_eos=self.ignore_eos,
            constraint=self._constraint(),
            first_token_within_ms=self.first_token_within_ms,
            share_prefix=self.share_prefix,
            logprobs=logprobs,
            top_logprobs=top_logprobs,
        )


class TextPart(BaseModel):
    type: str
    text: str = ""


class Message(BaseModel):
    role: str
    content: str | list[TextPart] | None = None

    def to_chat(self, index: int) -> ChatMessage:
        if self.content is None:
            raise InvalidRequest.of(f"messages[{index}].content", "is missing")
        if isinstance(self.content, str):
            return ChatMessage(_ROLE_NAMES.get(self.role, self.role), self.content)
        if any(part.type != "text" for part in self.content):
            raise InvalidRequest.of(f"messages[{index}].content", "only text parts are supported")
        text = "".join(part.text for part in self.content)
        return ChatMessage(_ROLE_NAMES.get(self.role, self.role), text)


class ChatCompletionRequest(_Body):
    messages: list[Message]
    max_completion_tokens: int | None = Field(None, description="The newer name of max_tokens.")
    logprobs: bool = False
    top_logprobs: int = 0

    def prompt(self) -> tuple[ChatMessage, ...]:
        if not self.messages:
            raise InvalidRequest.of("messages", "must not be empty")
        return tuple(message.to_chat(index) for index, message in enumerate(self.messages))

    def asked(self) -> Asked:
        newer = self.max_completion_tokens
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest.of("top_logprobs", "only goes with logprobs: true")
        return self._asked(
            max_tokens=self.max_tokens if newer is None else newer,
            logprobs=self.logprobs,
            top_logprobs=self.top_logprobs,
        )


class CompletionRequest(_Body):
    prompt: str | list[int] | list[str]
    max_tokens: int | None = 16
    logprobs: int | None = Field(None, description="How many of the most likely tokens to show.")

    def one_prompt(self) -> str | tuple[int, ...]:
        if isinstance(self.prompt, str):
            return self.prompt
        if len(self.prompt) == 1 and isinstance(self.prompt[0], str):
            return self.prompt[0]
        if any(isinstance(part, str) for part in self.prompt):
            raise InvalidRequest.of("prompt", "one prompt a request is supported")
        return tuple(part for part in self.prompt if isinstance(part, int))

    def asked(self) -> Asked:
        return self._asked(
            max_tokens=self.max_tokens,
            logprobs=self.logprobs is not None,
            top_logprobs=self.logprobs or 0,
        )


_ROLE_NAMES = {"developer": "system"}

# Field: the values that ask for nothing.
_CHANGES_THE_ANSWER: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "guided_json": (),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "prediction": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
