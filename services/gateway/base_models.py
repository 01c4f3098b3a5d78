"""Base models as the gateway needs them: what the store says, and a tokenizer that runs."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from tokenizers import Tokenizer

from services.core.base_model import BaseModel
from services.core.changes import Change, ChangeKind
from services.core.errors import Unavailable

FIRST_LOOK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A base model with its tokenizer."""

    card: BaseModel
    tokenizer: Tokenizer = field(repr=False)


class BaseModelStore(Protocol):
    async def base_models(self) -> list[BaseModel]: ...
    async def tokenizer_json(self, name: str) -> bytes: ...


class BaseModels:
    """A runtime.watch.Follower: it looks once, and again when one was registered."""

    def __init__(self, store: BaseModelStore) -> None:
        self._store = store
        self._known: dict[str, ServedModel] = {}
        self._looked = asyncio.Event()

    async def find(self, name: str) -> ServedModel | None:
        """Raises Unavailable while the store was never reached."""
        if not self._looked.is_set():
            try:
                async with asyncio.timeout(FIRST_LOOK_SECONDS):
                    await self._looked.wait()
            except TimeoutError as error:
                raise Unavailable("the adapter store cannot be reached") from error
        return self._known.get(name)

    @property
    def any_known(self) -> bool:
        return bool(self._known)

    async def cards(self) -> list[BaseModel]:
        return await self._store.base_models()

    async def begin(self) -> None:
        await self._look()
        self._looked.set()

    async def change(self, change: Change) -> None:
        if change.kind is ChangeKind.BASE_MODEL_REGISTERED:
            await self._look()

    async def up_to_date(self) -> None:
        pass

    async def _look(self) -> None:
        for card in await self._store.base_models():
            if card.name not in self._known:
                text = (await self._store.tokenizer_json(card.name)).decode()
                tokenizer = await asyncio.to_thread(Tokenizer.from_str, text)
                self._known[card.name] = ServedModel(card, tokenizer)
