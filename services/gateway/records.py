"""What the ledger says of a request."""

from dataclasses import dataclass, fields
from typing import Any

from services.core.types import KeyId, RequestId, TenantId, WorkerId
from services.gateway.course import Course
from services.policies.fairness.cost import Cost

LOST = "LOST"
"""The outcome of a request whose gateway died: its tokens are those last marked as delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Times in microseconds: `accepted_us` since 1970, the other three since it was accepted."""

    id: RequestId
    asked_id: str  # as its caller calls it; several requests may be called the same
    tenant: TenantId
    key: KeyId  # empty: the operator's
    adapter: str  # digest; empty: the base model alone
    model: str  # as its caller named it
    base_model: str
    worker: WorkerId  # empty: none yet
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    accepted_us: int
    queue_us: int | None
    first_token_us: int | None
    total_us: int | None
    outcome: str | None  # None while it runs
    charge: float
    cost: str  # the function that the charge is by
    tier: str  # of service

    def values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in NAMES}


NAMES = tuple(field.name for field in fields(Record))


def record_of(course: Course, accepted_us: int, cost: Cost, *, outcome: str | None) -> Record:
    """What there is to say now. What gave nothing costs nothing; else the whole prompt counts."""
    completion, job = course.completion, course.completion.job
    began = course.first_token is not None
    return Record(
        id=job.request_id,
        asked_id=job.request_id.rpartition(".")[0][:64],
        tenant=completion.tenant,
        key=completion.key or KeyId(""),
        adapter=job.adapter or "",
        model=completion.model[:255],
        base_model=job.base_model,
        worker=WorkerId((course.worker or "")[:255]),
        prompt_tokens=len(job.prompt),
        cached_tokens=course.cached_tokens,
        completion_tokens=course.completion_tokens,
        accepted_us=accepted_us,
        queue_us=_since(course.accepted, course.started),
        first_token_us=_since(course.accepted, course.first_token),
        total_us=_since(course.accepted, course.ended),
        outcome=outcome,
        charge=cost(len(job.prompt), course.completion_tokens) if began else 0.0,
        cost=repr(cost)[:64],
        tier=completion.tier.value,
    )


def _since(start: float, moment: float | None) -> int | None:
    return None if moment is None else round((moment - start) * 1e6)
