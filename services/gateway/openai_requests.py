"""OpenAI's request bodies: what is understood, what is refused by name, what is ignored."""

from typing import Any

from pydantic import ConfigDict, Field

from services.core.errors import FieldViolation, InvalidRequest
from services.core.types import MOST_TOP_LOGPROBS, Constraint
from services.gateway.conversation import Conversation
from services.gateway.openai_constraints import ResponseFormat, StructuredOutputs
from services.gateway.openai_fields import Fields, Flag, Number, Whole, between
from services.gateway.openai_messages import Message
from services.gateway.openai_tools import Tool, ToolChoice, tools_of
from services.gateway.prompts import Prompt
from services.gateway.sampling import Asked
from services.gateway.tiers import TierWord, tier_named
from services.gateway.tools import Tools

MOST_CHOICES = 16
MOST_COMPLETIONS = 128


class StreamOptions(Fields):
    include_usage: Flag = Field(False, description="A last chunk that has the usage of all.")


class _Body(Fields):
    """Fields of both endpoints."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(description="A base model, an adapter, or adapter@version.")
    max_tokens: Whole | None = Field(None, json_schema_extra=between(1))
    temperature: Number = Field(1.0, description="0 is greedy.", json_schema_extra=between(0, 2))
    top_p: Number = Field(
        1.0, description="More than 0, at most 1.", json_schema_extra=between(0, 1)
    )
    top_k: Whole = Field(
        0,
        description="An extension: only the k most likely tokens; 0: any.",
        json_schema_extra=between(0),
    )
    n: Whole = Field(
        1, description="Choices to make of each prompt.", json_schema_extra=between(1, MOST_CHOICES)
    )
    stop: str | list[str] = Field([], description="Texts that end the answer.")
    seed: Whole | None = None
    stream: Flag = Field(False, description="Answer with server-sent events.")
    stream_options: StreamOptions | None = None
    presence_penalty: Number = Field(0.0, json_schema_extra=between(-2, 2))
    frequency_penalty: Number = Field(0.0, json_schema_extra=between(-2, 2))
    logit_bias: dict[int, Number] = Field({}, description="By token id, -100 to 100.")
    response_format: ResponseFormat | None = Field(
        None, description="text, json_object, or json_schema with a schema that the answer matches."
    )
    min_p: Number = Field(
        0.0,
        description="An extension: only tokens at least this share as likely as the likeliest.",
        json_schema_extra=between(0, 1),
    )
    repetition_penalty: Number = Field(
        1.0, description="An extension: more than 0.", json_schema_extra=between(0, 10)
    )
    stop_token_ids: list[Whole] = Field([], description="An extension: tokens that end the answer.")
    structured_outputs: StructuredOutputs | None = Field(
        None, description="An extension: a JSON schema, regex, choice or Lark grammar to match."
    )
    ignore_eos: Flag = Field(False, description="An extension: go on past end-of-text tokens.")
    first_token_within_ms: Whole | None = Field(
        None,
        description="An extension: refuse at once (503, too_late) what would take longer.",
        json_schema_extra=between(1),
    )
    share_prefix: Flag = Field(
        False, description="An extension: share cached base-model prefixes with other tenants."
    )
    service_tier: TierWord = Field(
        "auto",
        description="How it compares with others that wait. auto: default, or the highest tier "
        "that the tenant may ask for if that is lower; 403 for a higher one.",
    )

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
            service_tier=tier_named(self.service_tier, "service_tier"),
            logprobs=logprobs,
            top_logprobs=top_logprobs,
        )


class ChatCompletionRequest(_Body):
    messages: list[Message] = Field(json_schema_extra={"minItems": 1})
    max_completion_tokens: Whole | None = Field(
        None, description="The newer name of max_tokens.", json_schema_extra=between(1)
    )
    logprobs: Flag = False
    top_logprobs: Whole = Field(0, json_schema_extra=between(0, MOST_TOP_LOGPROBS))
    tools: list[Tool] = Field([], description="Functions that the model may call.")
    tool_choice: ToolChoice | None = Field(
        None,
        description="auto (the default); none; required; or a function that must be called. With "
        "the last two the answer is calls, whose arguments follow their schemas.",
    )
    parallel_tool_calls: Flag = Field(True, description="Whether there may be several calls.")

    def prompts(self, tools: Tools | None) -> tuple[Prompt, ...]:
        messages = tuple(message.to_chat(index) for index, message in enumerate(self.messages))
        return (Conversation(messages, () if tools is None else tools.functions),)

    def offered_tools(self) -> Tools | None:
        return tools_of(self.tools, self.tool_choice, parallel=self.parallel_tool_calls)

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
    prompt: str | list[str] | list[Whole] | list[list[Whole]] = Field(
        description="A text, token ids, or several of one kind: each is a prompt of its own."
    )
    max_tokens: Whole | None = Field(16, json_schema_extra=between(1))
    logprobs: Whole | None = Field(
        None,
        description="How many of the most likely tokens to show.",
        json_schema_extra=between(0, MOST_TOP_LOGPROBS),
    )

    def prompts(self) -> tuple[Prompt, ...]:
        """Raises InvalidRequest for none, and for more than one request may ask for."""
        several: tuple[Prompt, ...]
        if isinstance(self.prompt, str):
            several = (self.prompt,)
        elif self.prompt and isinstance(self.prompt[0], int):
            several = (tuple(token for token in self.prompt if isinstance(token, int)),)
        else:
            several = tuple(
                each if isinstance(each, str) else tuple(each)
                for each in self.prompt
                if not isinstance(each, int)
            )
        if not several:
            raise InvalidRequest.of("prompt", "must not be empty")
        if len(several) * self.n > MOST_COMPLETIONS:
            said = f"times n: at most {MOST_COMPLETIONS} completions a request"
            raise InvalidRequest.of("prompt", said)
        return several

    def refuse_unsupported(self) -> None:
        super().refuse_unsupported()
        extra = self.model_extra or {}
        if extra.get("tools"):
            raise InvalidRequest.of("tools", "only go with chat completions")

    def asked(self) -> Asked:
        return self._asked(
            max_tokens=self.max_tokens,
            logprobs=self.logprobs is not None,
            top_logprobs=self.logprobs or 0,
        )


# Field: the values that ask for nothing.
_CHANGES_THE_ANSWER: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "add_generation_prompt": (True,),
    "best_of": (1,),
    "chat_template": (),
    "continue_final_message": (False,),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "prediction": (),
    "prompt_logprobs": (),
    "suffix": ("",),
    "use_beam_search": (False,),
    "web_search_options": (),
}
