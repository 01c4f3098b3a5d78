"""OpenAI's response bodies, whole and in chunks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tokenizers import Tokenizer

from services.core.types import PositionLogprobs, TokenLogprob
from services.gateway.course import Completion, TextPiece
from services.gateway.text import token_text

Kind = Literal["chat", "text"]


@dataclass(slots=True)
class Choice:
    """One completion as it grows."""

    text: str = ""
    logprobs: list[PositionLogprobs] = field(default_factory=list)
    finish_reason: str | None = None
    completion_tokens: int = 0

    def add(self, piece: TextPiece) -> None:
        self.text += piece.text
        self.logprobs += piece.logprobs
        self.completion_tokens = piece.completion_tokens
        if piece.finish_reason is not None:
            self.finish_reason = piece.finish_reason.value


class Form:
    """Writes the answers to one request."""

    def __init__(self, kind: Kind, completion: Completion, created_seconds: int) -> None:
        self._kind = kind
        self._completion = completion
        prefix = "chatcmpl" if kind == "chat" else "cmpl"
        fingerprint = completion.job.base_fingerprint[:12]
        if completion.job.adapter is not None:
            fingerprint += "-" + completion.job.adapter[:12]
        self._head = {
            "id": f"{prefix}-{completion.job.request_id}",
            "created": created_seconds,
            "model": completion.model,
            "system_fingerprint": fingerprint,
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
        if not (piece.text or piece.finish_reason or piece.logprobs):
            return None
        choice = Choice()
        choice.add(piece)
        body = self._choice(index, choice)
        if self._kind == "chat":
            del body["message"]
            body["delta"] = {"content": piece.text} if piece.text else {}
        return self._chunk([body], with_usage)

    def closing(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The chunk with no choices and the usage of all."""
        return self._chunk([], with_usage=True) | {"usage": self.usage(choices)}

    def usage(self, choices: Sequence[Choice]) -> dict[str, int]:
        prompt = len(self._completion.job.prompt)
        made = sum(choice.completion_tokens for choice in choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": made,
            "total_tokens": prompt + made,
        }

    def _chunk(self, choices: list[dict[str, Any]], with_usage: bool) -> dict[str, Any]:
        name = "chat.completion.chunk" if self._kind == "chat" else "text_completion"
        chunk = {**self._head, "object": name, "choices": choices}
        return chunk | {"usage": None} if with_usage else chunk

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        tokenizer = self._completion.base.tokenizer
        body: dict[str, Any] = {"index": index, "finish_reason": choice.finish_reason}
        if self._kind == "chat":
            body["message"] = {"role": "assistant", "content": choice.text}
            body["logprobs"] = _chat_logprobs(tokenizer, choice.logprobs)
        else:
            body["text"] = choice.text
            body["logprobs"] = _text_logprobs(tokenizer, choice.logprobs)
        return body


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
