"""OpenAI's response bodies, whole and in chunks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from tokenizers import Tokenizer

from services.core.types import PositionLogprobs, TokenLogprob
from services.gateway.choices import Choice
from services.gateway.course import CallPiece, Completion, TextPiece
from services.gateway.text import token_text

Kind = Literal["chat", "text"]


class Form:
    """Writes the answers to one request."""

    def __init__(self, kind: Kind, prompts: Sequence[Completion], created_seconds: int) -> None:
        """`prompts`: the first completion of each."""
        self._kind = kind
        self._prompts = prompts
        completion = prompts[0]
        prefix = "chatcmpl" if kind == "chat" else "cmpl"
        fingerprint = completion.job.base_fingerprint[:12]
        if completion.job.adapter is not None:
            fingerprint += "-" + completion.job.adapter[:12]
        self._head = {
            "id": f"{prefix}-{completion.job.request_id}",
            "created": created_seconds,
            "model": completion.model,
            "system_fingerprint": fingerprint,
            "service_tier": completion.tier.value,
        }

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        name = "chat.completion" if self._kind == "chat" else "text_completion"
        body = [self._choice(index, choice) for index, choice in enumerate(choices)]
        return {**self._head, "object": name, "choices": body, "usage": self.usage(choices)}

    def opening(self, index: int, *, with_usage: bool) -> dict[str, Any] | None:
        """The first chunk of a chat choice, which says who speaks."""
        if self._kind == "text":
            return None
        delta = {"role": "assistant", "content": ""}
        return self._chunk(
            [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}], with_usage
        )

    def piece(self, index: int, piece: TextPiece, *, with_usage: bool) -> dict[str, Any] | None:
        """A chunk, unless there is nothing to say yet."""
        if not (piece.text or piece.finish_reason or piece.logprobs or piece.calls):
            return None
        choice = Choice()
        choice.add(replace(piece, calls=()))  # they are in the delta
        body = self._choice(index, choice)
        if self._kind == "chat":
            del body["message"]
            body["delta"] = _delta(piece)
        return self._chunk([body], with_usage)

    def closing(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The chunk with no choices and the usage of all."""
        return self._chunk([], with_usage=True) | {"usage": self.usage(choices)}

    def usage(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """A prompt counts once, however many choices it has."""
        prompt = sum(len(completion.job.prompt) for completion in self._prompts)
        made = sum(choice.completion_tokens for choice in choices)
        firsts = choices[:: len(choices) // len(self._prompts)]
        return {
            "prompt_tokens": prompt,
            "completion_tokens": made,
            "total_tokens": prompt + made,
            "prompt_tokens_details": {
                "cached_tokens": sum(choice.cached_tokens for choice in firsts)
            },
        }

    def _chunk(self, choices: list[dict[str, Any]], with_usage: bool) -> dict[str, Any]:
        name = "chat.completion.chunk" if self._kind == "chat" else "text_completion"
        chunk = {**self._head, "object": name, "choices": choices}
        return chunk | {"usage": None} if with_usage else chunk

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        tokenizer = self._prompts[0].base.tokenizer
        body: dict[str, Any] = {"index": index, "finish_reason": choice.finish_reason}
        if self._kind == "chat":
            body["message"] = _message(choice)
            body["logprobs"] = _chat_logprobs(tokenizer, choice.logprobs)
        else:
            body["text"] = choice.text
            body["logprobs"] = _text_logprobs(tokenizer, choice.logprobs)
        return body


def _message(choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.calls:
        message["content"] = choice.text or None
        message["tool_calls"] = [_call(call) for call in choice.calls]
    return message


def _delta(piece: TextPiece) -> dict[str, Any]:
    delta: dict[str, Any] = {"content": piece.text} if piece.text else {}
    if piece.calls:
        delta["tool_calls"] = [
            {"index": call.index} | (_call(call) if call.id else _more_arguments(call))
            for call in piece.calls
        ]
    return delta


def _call(call: CallPiece) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _more_arguments(call: CallPiece) -> dict[str, Any]:
    return {"function": {"arguments": call.arguments}}


def _chat_logprobs(
    tokenizer: Tokenizer, positions: Sequence[PositionLogprobs]
) -> dict[str, Any] | None:
    def entry(token: TokenLogprob) -> dict[str, Any]:
        text, raw = token_text(tokenizer, token.token)
        return {"token": text, "logprob": token.logprob, "bytes": list(raw)}

    if not positions:
        return None
    content = [
        entry(position.chosen) | {"top_logprobs": [entry(token) for token in position.top]}
        for position in positions
    ]
    return {"content": content, "refusal": None}


def _text_logprobs(
    tokenizer: Tokenizer, positions: Sequence[PositionLogprobs]
) -> dict[str, Any] | None:
    if not positions:
        return None

    def text(token: TokenLogprob) -> str:
        return token_text(tokenizer, token.token)[0]

    return {
        "tokens": [text(position.chosen) for position in positions],
        "token_logprobs": [position.chosen.logprob for position in positions],
        "top_logprobs": [
            {text(token): token.logprob for token in position.top} for position in positions
        ],
    }
