"""Uploads in SQL, to the versions that they become."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.adapter_store.models import AdapterRow, BlobRow, UploadRow
from services.adapter_store.records import AdapterVersion, NewVersion, Upload
from services.adapter_store.repositories import changes
from services.adapter_store.repositories.versions import (
    NEWEST,
    Row,
    provenance_of,
    told_of,
    version_of,
)
from services.core.changes import ChangeKind
from services.core.errors import FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from services.core.types import AdapterName, TenantId
from services.runtime.db import insert_unless_there, now_us, writing


class SqlUploadRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def open_upload(self, upload: Upload, *, most_uploads: int) -> Upload:
        unfinished = (UploadRow.tenant == upload.tenant) & UploadRow.version_id.is_(None)
        async with writing(self._sessions) as session:
            rows = list(await session.scalars(select(UploadRow).where(unfinished)))
            for row in rows:
                if _same(_upload(row), upload):
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
                    provenance=asdict(upload.provenance),
                    created_us=now_us(),
                    content_tag=upload.content_tag,
                )
            )
        return upload

    async def upload(self, upload_id: str) -> tuple[Upload, AdapterVersion | None] | None:
        async with self._sessions() as session:
            row = await session.get(UploadRow, upload_id)
            if row is None:
                return None
            version = await session.get(Row, row.version_id) if row.version_id else None
            return _upload(row), None if version is None else version_of(version)

    async def drop_upload(self, upload_id: str) -> None:
        async with writing(self._sessions) as session:
            row = await session.get(UploadRow, upload_id)
            if row is not None:
                await session.delete(row)

    async def purge(self, *, older_than: timedelta, limit: int) -> list[str]:
        """Uploads as old as that, finished or given up: the ids of those that went."""
        before = now_us() - older_than // timedelta(microseconds=1)
        old = select(UploadRow.id).where(UploadRow.created_us <= before).limit(limit)
        async with writing(self._sessions) as session:
            ids = list(await session.scalars(old))
            await session.execute(delete(UploadRow).where(UploadRow.id.in_(ids)))
            return ids

    async def unknown(self, ids: Sequence[str]) -> list[str]:
        """Those of them that are no upload that still wants its bytes."""
        query = select(UploadRow.id).where(UploadRow.version_id.is_(None))
        async with self._sessions() as session:
            wanted = set(await session.scalars(query))
        return [upload for upload in ids if upload not in wanted]

    async def commit(self, upload_id: str, version: NewVersion) -> AdapterVersion:
        """The version and the end of its upload in one transaction. Raises NotFound."""
        async with writing(self._sessions) as session:
            upload = await session.get(UploadRow, upload_id)
            if upload is None:
                raise NotFound("there is no such upload")
            adapter = await _locked(session, version.tenant, version.adapter)
            if adapter.deleted_us is not None:
                raise FailedPrecondition(f"{version.adapter} was deleted; undelete it first")
            named = {"tenant": version.tenant, "adapter": version.adapter}
            newest = await session.scalar(NEWEST, named)
            is_new = newest is None or newest.digest != version.digest
            if newest is None or is_new:
                if await session.get(BlobRow, version.digest, with_for_update=True) is None:
                    raise Unavailable("its weights were collected meanwhile; finish it again")
                adapter.last_number += 1
                columns = asdict(version)
                columns |= columns.pop("details")
                newest = Row(**columns, number=adapter.last_number, created_us=now_us())
                session.add(newest)
                await session.flush()
            upload.version_id = newest.id
            if is_new:
                await changes.record(session, told_of(ChangeKind.VERSION_ADDED, newest))
            return version_of(newest)


async def _locked(session: AsyncSession, tenant: TenantId, name: AdapterName) -> AdapterRow:
    """The adapter's row, made if there is none, until the transaction ends."""
    await insert_unless_there(
        session, AdapterRow, tenant=tenant, name=name, last_number=0, created_us=now_us()
    )
    return await session.get_one(AdapterRow, (tenant, name), with_for_update=True)


def _same(begun: Upload, asked: Upload) -> bool:
    """Whichever of a tenant's keys goes on with it."""
    by_both = replace(asked.provenance, created_by=begun.provenance.created_by)
    return replace(asked, id=begun.id, provenance=by_both) == begun


def _upload(row: UploadRow) -> Upload:
    return Upload(
        id=row.id,
        tenant=TenantId(row.tenant),
        adapter=AdapterName(row.adapter),
        config_json=row.config_json,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        base_model=row.base_model,
        provenance=provenance_of(row.provenance),
        content_tag=row.content_tag,
    )
