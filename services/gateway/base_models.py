"""Base models as the gateway needs them: what the store says, and a tokenizer that runs."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tokenizers import Tokenizer

from services.core.base_model import BaseModel

REFRESH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A base model with its tokenizer."""

    card: BaseModel
    tokenizer: Tokenizer = field(repr=False)


class BaseModelStore(Protocol):
    async def base_models(self) -> list[BaseModel]: ...
    async def tokenizer_json(self, name: str) -> bytes: ...


class BaseModels:
    """Models are kept for good; one that is not known is looked for once a second at most."""

    def __init__(self, store: BaseModelStore, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._now = now
        self._known: dict[str, ServedModel] = {}
        self._looked_at = -REFRESH_SECONDS
        self._looking = asyncio.Lock()

    async def find(self, name: str) -> ServedModel | None:
        if name not in self._known and self._is_stale():
            async with self._looking:
                if self._is_stale():
                    await self._look()
        return self._known.get(name)

    async def cards(self) -> list[BaseModel]:
        return await self._store.base_models()

    def _is_stale(self) -> bool:
        return self._now() - self._looked_at >= REFRESH_SECONDS

    async def _look(self) -> None:
        for card in await self._store.base_models():
            if card.name not in self._known:
                tokenizer = await self._store.tokenizer_json(card.name)
                self._known[card.name] = ServedModel(card, Tokenizer.from_str(tokenizer.decode()))
        self._looked_at = self._now()
