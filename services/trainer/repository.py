"""Jobs and what they showed, in SQL. Whoever took a job before somebody else did writes nothing."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from services.core.errors import NotFound, ResourceExhausted
from services.core.types import Digest, Fingerprint, TenantId
from services.runtime.db import Sessions, insert_unless_there, now_us, writing
from services.trainer.config import TrainingConfig
from services.trainer.federation import Federation
from services.trainer.jobs import (
    FEDERATED,
    Checkpoint,
    DataKind,
    DataSet,
    Job,
    JobState,
    Lease,
    LeaseLost,
    Point,
    Published,
    Wish,
)
from services.trainer.models import JobRow, PointRow

_HELD = (JobState.RUNNING.value, JobState.PUBLISHING.value)
_UNFINISHED = (JobState.QUEUED.value, *_HELD)


class SqlJobs:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def create(
        self, wish: Wish, base: Fingerprint, data: DataSet | None, *, most_unfinished: int
    ) -> Job:
        """The one that this request made before, if there is one. Raises ResourceExhausted."""
        mine, row = JobRow.tenant == wish.tenant, _row(wish, base, data)
        again = select(JobRow).where(mine, JobRow.request_id == row["request_id"])
        unfinished = select(func.count()).where(mine, JobRow.state.in_(_UNFINISHED))
        async with writing(self._sessions) as session:
            found = await session.scalar(again)
            if found is None:
                if (await session.scalar(unfinished) or 0) >= most_unfinished:
                    raise ResourceExhausted(f"a tenant may have {most_unfinished} unfinished jobs")
                await insert_unless_there(session, JobRow, **row)
                found = await session.scalar(again)
            assert found is not None
            return _job(found)

    async def get(self, tenant: TenantId, job: str) -> Job:
        """Raises NotFound."""
        async with self._sessions() as session:
            return _job(await _find(session, tenant, job))

    async def page(self, tenant: TenantId, *, before: int | None, limit: int) -> list[Job]:
        """The newest first."""
        query = select(JobRow).where(JobRow.tenant == tenant)
        if before is not None:
            query = query.where(JobRow.number < before)
        async with self._sessions() as session:
            found = await session.scalars(query.order_by(JobRow.number.desc()).limit(limit))
            return [_job(row) for row in found]

    async def cancel(self, tenant: TenantId, job: str) -> Job:
        """Raises NotFound or FailedPrecondition."""
        async with writing(self._sessions) as session:
            row = await _find(session, tenant, job, lock=True)
            if row.state != JobState.CANCELLED.value:
                _job(row).require_cancellable()
                row.state, row.ended_us = JobState.CANCELLED.value, now_us()
            return _job(row)

    async def points(self, job: str, *, after: int, limit: int) -> list[Point]:
        query = select(PointRow).where(PointRow.job == job, PointRow.step > after)
        async with self._sessions() as session:
            found = await session.scalars(query.order_by(PointRow.step).limit(limit))
            return [Point(r.step, r.loss, r.validation_loss, r.accuracy) for r in found]

    async def unfinished(self) -> list[Job]:
        """Everybody's."""
        query = select(JobRow).where(JobRow.state.in_(_UNFINISHED))
        async with self._sessions() as session:
            return [_job(row) for row in await session.scalars(query)]

    async def beats(self) -> dict[str, int]:
        """Of jobs that somebody has, by id."""
        query = select(JobRow.id, JobRow.beat).where(JobRow.state.in_(_HELD))
        async with self._sessions() as session:
            return {row.id: row.beat for row in await session.execute(query)}

    async def take(
        self, holder: str, bases: Collection[Fingerprint], silent: Mapping[str, int]
    ) -> Job | None:
        """One of a base model of these: whose beat still is as it was when its holder was silent,
        or one that waits, of a tenant that has fewest under way."""
        if not silent and not await self._any_waits(bases):
            return None  # the usual case, which need not stop others from writing
        async with writing(self._sessions) as session:
            row = await _left(session, bases, silent) or await _waiting(session, bases)
            if row is None:
                return None
            if row.state == JobState.QUEUED.value:
                row.state = JobState.RUNNING.value
            else:
                row.crashes += 1
            row.term, row.beat, row.holder = row.term + 1, row.beat + 1, holder[:255]
            row.started_us = row.started_us or now_us()
            await session.execute(  # steps that are done again
                delete(PointRow).where(PointRow.job == row.id, PointRow.step > row.saved_steps)
            )
            return _job(row)

    async def _any_waits(self, bases: Collection[Fingerprint]) -> bool:
        query = select(JobRow.number).where(*_is_waiting(bases)).limit(1)
        async with self._sessions() as session:
            return await session.scalar(query) is not None

    async def beat(self, lease: Lease) -> None:
        """Raises LeaseLost."""
        async with writing(self._sessions) as session:
            await _write(session, lease, beat=JobRow.beat + 1)

    async def add_points(self, lease: Lease, points: Sequence[Point]) -> None:
        """Raises LeaseLost."""
        async with writing(self._sessions) as session:
            await _write(session, lease, beat=JobRow.beat + 1)
            session.add_all([PointRow(job=lease.job, **asdict(point)) for point in points])

    async def save(self, lease: Lease, checkpoint: Checkpoint) -> None:
        """From here a job goes on. Raises LeaseLost."""
        async with writing(self._sessions) as session:
            await _write(session, lease, **_reached(checkpoint), crashes=0)

    async def crashed(self, lease: Lease) -> Job:
        """Without having got on. Raises LeaseLost."""
        async with writing(self._sessions) as session:
            await _write(session, lease, crashes=JobRow.crashes + 1)
            row = await _held(session, lease)
            beyond = (PointRow.job == row.id, PointRow.step > row.saved_steps)
            await session.execute(delete(PointRow).where(*beyond))
            return _job(row)

    async def trained(self, lease: Lease, result: Checkpoint, metrics: Mapping[str, float]) -> Job:
        """Its result is to be published. Raises LeaseLost."""
        state = JobState.PUBLISHING.value
        async with writing(self._sessions) as session:
            measured = json.dumps(dict(metrics))
            await _write(session, lease, **_reached(result), metrics=measured, state=state)
            return _job(await _held(session, lease))

    async def succeeded(self, lease: Lease, version: Published) -> None:
        """Raises LeaseLost."""
        await self._end(
            lease, JobState.SUCCEEDED, version=version.number, digest=str(version.digest)
        )

    async def failed(self, lease: Lease, error: str) -> None:
        """Raises LeaseLost."""
        await self._end(lease, JobState.FAILED, error=error)

    async def released(self, lease: Lease) -> None:
        """For whoever takes it next. Raises LeaseLost."""
        async with writing(self._sessions) as session:
            running = JobRow.state == JobState.RUNNING.value
            await _write(session, lease, running, state=JobState.QUEUED.value)

    async def _end(self, lease: Lease, state: JobState, **values: Any) -> None:
        async with writing(self._sessions) as session:
            await _write(session, lease, state=state.value, ended_us=now_us(), **values)


async def _find(session: AsyncSession, tenant: TenantId, job: str, *, lock: bool = False) -> JobRow:
    query = select(JobRow).where(JobRow.tenant == tenant, JobRow.id == job)
    row = await session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"there is no job {job!r}")
    return row


async def _left(
    session: AsyncSession, bases: Collection[str], silent: Mapping[str, int]
) -> JobRow | None:
    query = select(JobRow).where(
        JobRow.id.in_(silent), JobRow.state.in_(_HELD), JobRow.base_fingerprint.in_(bases)
    )
    found = await session.scalars(query.with_for_update(skip_locked=True))
    return next((row for row in found if row.beat == silent[row.id]), None)


async def _waiting(session: AsyncSession, bases: Collection[str]) -> JobRow | None:
    other = aliased(JobRow)
    underway = (
        select(func.count())
        .where(other.tenant == JobRow.tenant, other.state.in_(_HELD))
        .scalar_subquery()
    )
    query = select(JobRow).where(*_is_waiting(bases)).order_by(underway, JobRow.number).limit(1)
    return await session.scalar(query.with_for_update(skip_locked=True, of=JobRow))


def _is_waiting(bases: Collection[str]) -> tuple[Any, ...]:
    return (JobRow.state == JobState.QUEUED.value, JobRow.base_fingerprint.in_(bases))


async def _write(session: AsyncSession, lease: Lease, *conditions: Any, **values: Any) -> None:
    """Only under the newest term, while nobody has cancelled it. Raises LeaseLost."""
    held = (JobRow.id == lease.job, JobRow.term == lease.term, JobRow.state.in_(_HELD))
    done = await session.execute(update(JobRow).where(*held, *conditions).values(**values))
    assert isinstance(done, CursorResult)
    if done.rowcount != 1:
        raise LeaseLost(lease.job)


async def _held(session: AsyncSession, lease: Lease) -> JobRow:
    """As it was just written."""
    return (await session.scalars(select(JobRow).where(JobRow.id == lease.job))).one()


def _reached(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint.name,
        "saved_steps": checkpoint.steps,
        "total_steps": checkpoint.total_steps,
    }


def _row(wish: Wish, base: Fingerprint, data: DataSet | None) -> dict[str, Any]:
    name = f"job-{uuid4().hex[:20]}"
    config = asdict(wish.config)
    if wish.federation is not None:
        config[FEDERATED] = asdict(wish.federation)
    return {
        "id": name,
        "tenant": wish.tenant,
        "request_id": wish.request_id or name,
        "adapter": wish.adapter,
        "base_model": wish.base_model,
        "base_fingerprint": base,
        "method": wish.method,
        "data": json.dumps(data and asdict(data) | {"kind": data.kind.value}),
        "config": json.dumps(config),
        "created_by": wish.created_by[:255],
        "state": JobState.QUEUED.value,
        "created_us": now_us(),
        "metrics": "{}",
        **dict.fromkeys(("holder", "checkpoint", "error", "digest"), ""),
        **dict.fromkeys(
            ("term", "beat", "saved_steps", "total_steps", "crashes", "version", "started_us",
             "ended_us"), 0,
        ),
    }  # fmt: skip


def _job(row: JobRow) -> Job:
    data, config = json.loads(row.data), json.loads(row.config)
    modules = tuple(config.pop("target_modules"))
    federation = config.pop(FEDERATED, None)
    return Job(
        number=row.number,
        id=row.id,
        tenant=TenantId(row.tenant),
        adapter=row.adapter,
        base_model=row.base_model,
        base_fingerprint=Fingerprint(row.base_fingerprint),
        data=data and DataSet(**data | {"kind": DataKind(data["kind"])}),
        method=row.method,
        config=TrainingConfig(**config, target_modules=modules),
        created_by=row.created_by,
        request_id=row.request_id,
        state=JobState(row.state),
        term=row.term,
        checkpoint=row.checkpoint,
        saved_steps=row.saved_steps,
        total_steps=row.total_steps,
        crashes=row.crashes,
        error=row.error,
        version=row.version,
        digest=Digest(row.digest) if row.digest else None,
        metrics=json.loads(row.metrics),
        created_us=row.created_us,
        started_us=row.started_us,
        ended_us=row.ended_us,
        federation=federation and Federation.from_json(federation),
    )
