"""Which gateways live, and what those left that do not, in SQL."""

from sqlalchemy import CursorResult, delete, select, union, update

from services.gateway.leases import Left
from services.gateway.models import InstanceRow, LedgerRow, ReservationRow
from services.gateway.records import LOST
from services.gateway.repositories.quotas import SqlQuotaRepository
from services.runtime.db import Sessions, writing


class SqlLeases:
    """Locks a gateway's row first, then its requests, then the quotas that it holds of."""

    def __init__(self, sessions: Sessions, quotas: SqlQuotaRepository) -> None:
        self._sessions = sessions
        self._quotas = quotas

    async def beats(self) -> dict[str, int]:
        async with self._sessions() as session:
            beats = dict.fromkeys(await session.scalars(_HOLDING), 0)
            for row in await session.execute(select(InstanceRow.id, InstanceRow.beat)):
                beats[row.id] = row.beat
            return beats

    async def close_lost(self, instance: str, beat: int) -> Left:
        seen = select(InstanceRow.beat).where(InstanceRow.id == instance).with_for_update()
        is_open = (LedgerRow.instance == instance, LedgerRow.outcome.is_(None))
        async with writing(self._sessions) as session:
            if (await session.scalar(seen) or 0) != beat:
                return Left()
            closed = await session.execute(update(LedgerRow).where(*is_open).values(outcome=LOST))
            assert isinstance(closed, CursorResult)
            reservations = await self._quotas.settle_whole(session, instance)
            await session.execute(delete(InstanceRow).where(InstanceRow.id == instance))
            return Left(closed.rowcount, reservations)


_HOLDING = union(
    select(LedgerRow.instance).where(LedgerRow.outcome.is_(None)), select(ReservationRow.holder)
)
