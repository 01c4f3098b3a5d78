"""Base models as the gateway needs them: names, limits, tokenizer, chat template."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tokenizers import Tokenizer

from services.core.types import Fingerprint


@dataclass(frozen=True, slots=True)
class BaseModelCard:
    """What the store says of a base model, without its tokenizer."""

    name: str
    fingerprint: Fingerprint
    context_tokens: int
    vocabulary_tokens: int
    chat_template: str
    special_tokens: Mapping[str, str]
    created_seconds: int


@dataclass(frozen=True, slots=True)
class BaseModel:
    card: BaseModelCard
    tokenizer: Tokenizer = field(repr=False)


class BaseModelStore(Protocol):
    async def base_models(self) -> list[BaseModelCard]: ...
    async def tokenizer_json(self, name: str) -> bytes: ...


class BaseModels:
    """Tokenizers are kept; a name that is not known is asked for each time."""

    def __init__(self, store: BaseModelStore) -> None:
        self._store = store
        self._known: dict[str, BaseModel] = {}
        self._loading = asyncio.Lock()

    async def find(self, name: str) -> BaseModel | None:
        if name in self._known:
            return self._known[name]
        async with self._loading:
            if name not in self._known:
                await self._learn(name)
            return self._known.get(name)

    async def cards(self) -> list[BaseModelCard]:
        return await self._store.base_models()

    async def _learn(self, name: str) -> None:
        card = next((card for card in await self._store.base_models() if card.name == name), None)
        if card is not None:
            tokenizer = await self._store.tokenizer_json(name)
            self._known[name] = BaseModel(card, Tokenizer.from_str(tokenizer.decode()))
