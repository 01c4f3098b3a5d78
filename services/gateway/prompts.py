"""Whatever a client sends as a prompt, as token ids."""

import asyncio

from services.core.errors import InvalidRequest
from services.gateway.base_models import ServedModel
from services.gateway.chat import ChatTemplates
from services.gateway.conversation import Conversation

Prompt = str | tuple[int, ...] | Conversation


class Prompts:
    def __init__(self, templates: ChatTemplates) -> None:
        self._templates = templates

    async def tokens(self, base: ServedModel, prompt: Prompt) -> tuple[int, ...]:
        """At least one token. Raises InvalidRequest for an empty or impossible prompt."""
        if isinstance(prompt, str):
            return await _encode(base, prompt, "prompt", special=True)
        if isinstance(prompt, Conversation):
            return await self._chat(base, prompt.checked())
        if not prompt:
            raise InvalidRequest.of("prompt", "must not be empty")
        return _in_vocabulary(base, prompt)

    async def _chat(self, base: ServedModel, conversation: Conversation) -> tuple[int, ...]:
        if not base.card.chat_template:
            raise InvalidRequest.of("messages", f"{base.card.name} has no chat template")
        text = await self._templates.render(
            base.card.chat_template, conversation, base.card.special_tokens
        )
        return await _encode(base, text, "messages", special=False)


async def _encode(base: ServedModel, text: str, field: str, *, special: bool) -> tuple[int, ...]:
    _refuse_surrogates(text, field)
    encoding = await asyncio.to_thread(base.tokenizer.encode, text, add_special_tokens=special)
    if not encoding.ids:
        raise InvalidRequest.of(field, "must not be empty")
    return tuple(encoding.ids)


def _in_vocabulary(base: ServedModel, tokens: tuple[int, ...]) -> tuple[int, ...]:
    size = base.card.vocabulary_tokens
    if not all(0 <= token < size for token in tokens):
        raise InvalidRequest.of("prompt", f"token ids must be 0 to {size - 1}")
    return tokens


def _refuse_surrogates(text: str, field: str) -> None:
    """JSON can hold half a surrogate pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest.of(field, "is not valid Unicode text") from error
