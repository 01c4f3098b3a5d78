"""The catalog in SQL."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.adapter_store.models import AdapterVersionRow, BaseModelRow, UploadRow
from services.adapter_store.records import AdapterVersion, NewVersion, Upload
from services.core.base_model import BaseModel, Module
from services.core.errors import FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from services.core.types import AdapterName, Digest, Fingerprint, TenantId

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RACES = 5  # tries for the next version number before the caller is asked to come again

Row = AdapterVersionRow


class SqlAdapterRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def open_upload(self, upload: Upload, *, most_uploads: int) -> Upload:
        unfinished = (UploadRow.tenant == upload.tenant) & UploadRow.version_id.is_(None)
        async with self._sessions.begin() as session:
            rows = list(await session.scalars(select(UploadRow).where(unfinished)))
            for row in rows:
                if replace(_upload(row), id=upload.id) == upload:
                    return _upload(row)
            if len(rows) >= most_uploads:
                raise ResourceExhausted(f"a tenant may have {most_uploads} unfinished uploads")
            session.add(
                UploadRow(
                    id=upload.id,
                    tenant=upload.tenant,
                    adapter=upload.adapter,
                    config_json=upload.config_json,
                    size_bytes=upload.size_bytes,
                    sha256=upload.sha256,
                    base_model=upload.base_model,
                    created_us=_now_us(),
                )
            )
        return upload

    async def upload(self, upload_id: str) -> tuple[Upload, AdapterVersion | None] | None:
        async with self._sessions() as session:
            row = await session.get(UploadRow, upload_id)
            if row is None:
                return None
            version = await session.get(Row, row.version_id) if row.version_id else None
            return _upload(row), None if version is None else _version(version)

    async def drop_upload(self, upload_id: str) -> None:
        async with self._sessions.begin() as session:
            row = await session.get(UploadRow, upload_id)
            if row is not None:
                await session.delete(row)

    async def commit(self, upload_id: str, version: NewVersion) -> AdapterVersion:
        """The version and the end of its upload in one transaction."""
        for _ in range(_RACES):
            try:
                return await self._commit_once(upload_id, version)
            except IntegrityError:
                continue  # somebody took the number
        raise Unavailable("the adapter is being uploaded by too many at once")

    async def count_adapters(self, tenant: TenantId) -> int:
        query = select(func.count(Row.adapter.distinct())).where(Row.tenant == tenant)
        async with self._sessions() as session:
            return (await session.scalar(query)) or 0

    async def newest(self, tenant: TenantId, name: str) -> AdapterVersion | None:
        async with self._sessions() as session:
            row = await _newest(session, tenant, name)
            return None if row is None else _version(row)

    async def numbered(self, tenant: TenantId, name: str, number: int) -> AdapterVersion | None:
        query = select(Row).where(Row.tenant == tenant, Row.adapter == name, Row.number == number)
        async with self._sessions() as session:
            row = await session.scalar(query)
            return None if row is None else _version(row)

    async def by_digest(self, tenant: TenantId, name: str, prefix: str) -> list[AdapterVersion]:
        query = select(Row).where(
            Row.tenant == tenant,
            Row.adapter == name,
            Row.digest.startswith(prefix, autoescape=True),
        )
        async with self._sessions() as session:
            return [_version(row) for row in await session.scalars(query)]

    async def versions(self, tenant: TenantId, name: str) -> list[AdapterVersion]:
        query = select(Row).where(Row.tenant == tenant, Row.adapter == name)
        async with self._sessions() as session:
            rows = await session.scalars(query.order_by(Row.number.desc()))
            return [_version(row) for row in rows]

    async def newest_config(self, tenant: TenantId, name: str) -> str:
        async with self._sessions() as session:
            row = await _newest(session, tenant, name)
            return "" if row is None else row.config_json

    async def adapters(self, tenant: TenantId, *, after: str, limit: int) -> list[AdapterVersion]:
        newest = (
            select(Row.adapter, func.max(Row.number).label("number"))
            .where(Row.tenant == tenant, Row.adapter > after)
            .group_by(Row.adapter)
            .order_by(Row.adapter)
            .limit(limit)
            .subquery()
        )
        query = (
            select(Row)
            .join(newest, (Row.adapter == newest.c.adapter) & (Row.number == newest.c.number))
            .where(Row.tenant == tenant)
            .order_by(Row.adapter)
        )
        async with self._sessions() as session:
            return [_version(row) for row in await session.scalars(query)]

    async def register(self, model: BaseModel) -> BaseModel:
        try:
            async with self._sessions.begin() as session:
                row = await session.get(BaseModelRow, model.name)
                if row is None:
                    row = _base_row(model)
                    session.add(row)
                if row.fingerprint != model.fingerprint:
                    raise FailedPrecondition(
                        f"{model.name} stands for other weights here; serve these by another name"
                    )
                row.card = _card(model)
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

    async def _commit_once(self, upload_id: str, version: NewVersion) -> AdapterVersion:
        async with self._sessions.begin() as session:
            upload = await session.get(UploadRow, upload_id, with_for_update=True)
            if upload is None:
                raise NotFound("there is no such upload")
            newest = await _newest(session, version.tenant, version.adapter)
            if newest is None or newest.digest != version.digest:
                number = 1 if newest is None else newest.number + 1
                newest = Row(**asdict(version), number=number, created_us=_now_us())
                session.add(newest)
                await session.flush()
            upload.version_id = newest.id
            return _version(newest)


async def _newest(session: AsyncSession, tenant: TenantId, name: str) -> Row | None:
    query = select(Row).where(Row.tenant == tenant, Row.adapter == name)
    found: Row | None = await session.scalar(query.order_by(Row.number.desc()).limit(1))
    return found


def _upload(row: UploadRow) -> Upload:
    return Upload(
        id=row.id,
        tenant=TenantId(row.tenant),
        adapter=AdapterName(row.adapter),
        config_json=row.config_json,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        base_model=row.base_model,
    )


def _version(row: AdapterVersionRow) -> AdapterVersion:
    return AdapterVersion(
        tenant=TenantId(row.tenant),
        adapter=AdapterName(row.adapter),
        number=row.number,
        digest=Digest(row.digest),
        base_model=row.base_model,
        base_fingerprint=Fingerprint(row.base_fingerprint),
        size_bytes=row.size_bytes,
        max_rank=row.max_rank,
        module_count=row.module_count,
        parameter_count=row.parameter_count,
        created=_time(row.created_us),
    )


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
        created_us=_now_us(),
    )


def _base_model(row: BaseModelRow) -> BaseModel:
    card: dict[str, Any] = dict(row.card)
    return BaseModel(
        name=row.name,
        fingerprint=Fingerprint(row.fingerprint),
        tokenizer_json=row.tokenizer_json,
        created=_time(row.created_us),
        also_known_as=tuple(card.pop("also_known_as")),
        end_tokens=tuple(card.pop("end_tokens")),
        modules=tuple(Module(**module) for module in card.pop("modules")),
        **card,
    )


def _now_us() -> int:
    return (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1)


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
