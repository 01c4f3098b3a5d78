"""Base models in SQL."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.adapter_store.models import BaseModelRow
from services.adapter_store.repositories import changes
from services.core.base_model import BaseModel, Module
from services.core.changes import Change, ChangeKind
from services.core.errors import FailedPrecondition
from services.core.types import Fingerprint
from services.runtime.db import now_us, time_of, writing


class SqlBaseModelRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def register(self, model: BaseModel) -> BaseModel:
        try:
            async with writing(self._sessions) as session:
                row = await session.get(BaseModelRow, model.name)
                is_new = row is None
                if row is None:
                    row = _base_row(model)
                    session.add(row)
                if row.fingerprint != model.fingerprint:
                    raise FailedPrecondition(
                        f"{model.name} stands for other weights here; serve these by another name"
                    )
                row.card = _card(model)
                if is_new:
                    told = Change(kind=ChangeKind.BASE_MODEL_REGISTERED, base_model=model.name)
                    await changes.record(session, told)
                return _base_model(row)
        except IntegrityError:  # another worker registered it in this very moment
            return await self.register(model)

    async def base_models(self) -> list[BaseModel]:
        async with self._sessions() as session:
            rows = await session.scalars(select(BaseModelRow).order_by(BaseModelRow.name))
            return [_base_model(row) for row in rows]

    async def base_model(self, name: str) -> BaseModel | None:
        async with self._sessions() as session:
            row = await session.get(BaseModelRow, name)
            return None if row is None else _base_model(row)


def _card(model: BaseModel) -> dict[str, Any]:
    card = asdict(model)
    for column in ("name", "fingerprint", "tokenizer_json", "created"):
        del card[column]
    return card


def _base_row(model: BaseModel) -> BaseModelRow:
    return BaseModelRow(
        name=model.name,
        fingerprint=model.fingerprint,
        card=_card(model),
        tokenizer_json=model.tokenizer_json,
        created_us=now_us(),
    )


def _base_model(row: BaseModelRow) -> BaseModel:
    card: dict[str, Any] = dict(row.card)
    return BaseModel(
        name=row.name,
        fingerprint=Fingerprint(row.fingerprint),
        tokenizer_json=row.tokenizer_json,
        created=time_of(row.created_us),
        also_known_as=tuple(card.pop("also_known_as")),
        end_tokens=tuple(card.pop("end_tokens")),
        modules=tuple(Module(**module) for module in card.pop("modules")),
        **card,
    )
