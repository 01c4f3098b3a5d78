"""Blobs in SQL: which there are, where they lie, and which nothing refers to."""

from datetime import timedelta

from sqlalchemy import delete, exists, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from services.adapter_store.models import AdapterVersionRow, BlobRow, GarbageRow
from services.adapter_store.weights import Blob
from services.core.types import Digest
from services.runtime.db import insert_unless_there, now_us, writing

_MICROSECOND = timedelta(microseconds=1)


class SqlBlobRepository:
    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def lease(self, digest: Digest, new_key: str, lease: timedelta) -> Blob:
        until = now_us() + lease // _MICROSECOND
        async with writing(self._sessions) as session:
            row = None
            while row is None:  # a collection may remove it between the two
                await insert_unless_there(
                    session, BlobRow, digest=digest, key=new_key, leased_until_us=until
                )
                row = await session.get(BlobRow, digest, with_for_update=True)
            row.leased_until_us = max(row.leased_until_us, until)
            return _blob(row)

    async def stored(self, blob: Blob) -> None:
        async with writing(self._sessions) as session:
            await session.execute(
                update(BlobRow)
                .where(BlobRow.digest == blob.digest, BlobRow.key == blob.key)
                .values(stored_us=now_us(), damaged_us=None)
            )

    async def find(self, digest: Digest) -> Blob | None:
        async with self._sessions() as session:
            row = await session.get(BlobRow, digest)
            return None if row is None or row.stored_us is None else _blob(row)

    async def discard_unreachable(self, limit: int) -> int:
        """Blobs that no version refers to and nobody leases become garbage: how many.

        A version that is being committed to one of them keeps it, or fails: its foreign key
        decides between the two transactions.
        """
        done = 0
        idle = ~exists().where(AdapterVersionRow.digest == BlobRow.digest)
        idle &= BlobRow.leased_until_us < now_us()
        async with self._sessions() as session:
            found = list(await session.scalars(select(BlobRow).where(idle).limit(limit)))
        for blob in found:
            try:
                async with writing(self._sessions) as session:
                    gone = delete(BlobRow).where(BlobRow.digest == blob.digest, idle)
                    if await session.scalar(gone.returning(BlobRow.key)) is not None:
                        session.add(GarbageRow(key=blob.key))
                        done += 1
            except IntegrityError:
                continue  # a version has just come to refer to it
        return done

    async def garbage(self, limit: int) -> list[str]:
        async with self._sessions() as session:
            return list(await session.scalars(select(GarbageRow.key).limit(limit)))

    async def forget_garbage(self, key: str) -> None:
        async with writing(self._sessions) as session:
            await session.execute(delete(GarbageRow).where(GarbageRow.key == key))

    async def least_verified(self, limit: int) -> list[Blob]:
        """Those stored whose last verification is longest ago, or never was."""
        query = (
            select(BlobRow)
            .where(BlobRow.stored_us.is_not(None))
            .order_by(BlobRow.verified_us.asc().nulls_first(), BlobRow.digest)
            .limit(limit)
        )
        async with self._sessions() as session:
            return [_blob(row) for row in await session.scalars(query)]

    async def verified(self, blob: Blob, *, is_good: bool) -> None:
        now = now_us()
        async with writing(self._sessions) as session:
            await session.execute(
                update(BlobRow)
                .where(BlobRow.digest == blob.digest, BlobRow.key == blob.key)
                .values(verified_us=now, damaged_us=None if is_good else now)
            )


def _blob(row: BlobRow) -> Blob:
    return Blob(Digest(row.digest), row.key, row.stored_us is not None and row.damaged_us is None)
