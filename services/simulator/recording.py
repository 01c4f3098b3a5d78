"""What happened in a replay: to every request, and to every tenant's service, step by step."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from services.core.types import RequestId, TenantId
from services.policies.fairness.admission import Request


class Outcome(Enum):
    OPEN = "open"  # it waited or ran when the replay ended
    FINISHED = "finished"
    REJECTED = "rejected"  # it was not even to wait
    CANCELLED = "cancelled"


@dataclass(slots=True)
class RequestRecord:
    """A request's life in seconds, None for what has not happened."""

    id: RequestId
    tenant: TenantId
    prompt_tokens: int
    wanted_tokens: int  # of output
    arrived: float
    admitted: float | None = None
    first_token: float | None = None
    ended: float | None = None
    output_tokens: int = 0
    outcome: Outcome = Outcome.OPEN


@dataclass(frozen=True, slots=True)
class Charge:
    """Service given at one instant: prompts at admission, outputs when their step ends."""

    at: float
    prompt_tokens: int
    output_tokens: int

    def cost(self, w_p: float, w_q: float) -> float:
        return w_p * self.prompt_tokens + w_q * self.output_tokens


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole replay."""

    requests: tuple[RequestRecord, ...]
    """In order of arrival."""
    charges: Mapping[TenantId, Sequence[Charge]]
    """By tenant, in order of time."""
    backlogged: Mapping[TenantId, Sequence[tuple[float, float]]]
    """By tenant: from when, and until when it always had a request that waited; the end is not
    part of it."""
    seconds: float
    """When the replay ended."""

    @property
    def tenants(self) -> tuple[TenantId, ...]:
        """All that asked for anything."""
        return tuple(sorted({record.tenant for record in self.requests}))

    def of(self, tenant: TenantId, outcome: Outcome) -> tuple[RequestRecord, ...]:
        return tuple(r for r in self.requests if r.tenant == tenant and r.outcome is outcome)

    def charged(self, tenant: TenantId, start: float, end: float) -> Sequence[Charge]:
        """From `start` to before `end`."""
        charges = self.charges.get(tenant, ())
        first, last = (bisect_left(charges, at, key=lambda c: c.at) for at in (start, end))
        return charges[first:last]

    def service(
        self, tenant: TenantId, start: float, end: float, *, w_p: float = 1, w_q: float = 2
    ) -> float:
        """W(start, end): what the tenant's tokens cost from `start` to before `end`."""
        return sum(charge.cost(w_p, w_q) for charge in self.charged(tenant, start, end))


class Recorder:
    """Writes a recording; is told of everything in order of time."""

    def __init__(self) -> None:
        self._records: dict[RequestId, RequestRecord] = {}
        self._charges: defaultdict[TenantId, list[Charge]] = defaultdict(list)
        self._waiting: Counter[TenantId] = Counter()
        self._waits_since: dict[TenantId, float] = {}
        self._backlogged: defaultdict[TenantId, list[tuple[float, float]]] = defaultdict(list)
        self.num_waiting = 0

    def is_open(self, request: RequestId) -> bool:
        return self._records[request].outcome is Outcome.OPEN

    def reject(self, request: Request, output_tokens: int, at: float) -> None:
        record = self._record(request, output_tokens, at)
        record.outcome, record.ended = Outcome.REJECTED, at

    def enqueue(self, request: Request, output_tokens: int, at: float) -> None:
        self._record(request, output_tokens, at)
        if not self._waiting[request.tenant]:
            self._waits_since[request.tenant] = at
        self._waiting[request.tenant] += 1
        self.num_waiting += 1

    def admit(self, request: RequestId, now: float) -> None:
        record = self._records[request]
        record.admitted = now
        self._charges[record.tenant].append(Charge(now, record.prompt_tokens, 0))
        self._waits_no_more(record.tenant, now)

    def produce(self, requests: Iterable[RequestId], now: float) -> None:
        """A token each."""
        tokens: Counter[TenantId] = Counter()
        for request in requests:
            record = self._records[request]
            if record.first_token is None:
                record.first_token = now
            record.output_tokens += 1
            tokens[record.tenant] += 1
        for tenant, count in tokens.items():
            self._charges[tenant].append(Charge(now, 0, count))

    def finish(self, request: RequestId, now: float) -> None:
        record = self._records[request]
        record.outcome, record.ended = Outcome.FINISHED, now

    def cancel(self, request: RequestId, now: float) -> None:
        record = self._records[request]
        record.outcome, record.ended = Outcome.CANCELLED, now
        if record.admitted is None:
            self._waits_no_more(record.tenant, now)

    def recording(self, now: float) -> Recording:
        for tenant, since in self._waits_since.items():
            if since < now:
                self._backlogged[tenant].append((since, now))
        self._waits_since.clear()
        return Recording(
            tuple(self._records.values()), dict(self._charges), dict(self._backlogged), now
        )

    def _record(self, request: Request, output_tokens: int, at: float) -> RequestRecord:
        record = RequestRecord(
            request.id, request.tenant, request.prompt_tokens, output_tokens, arrived=at
        )
        self._records[request.id] = record
        return record

    def _waits_no_more(self, tenant: TenantId, now: float) -> None:
        self.num_waiting -= 1
        self._waiting[tenant] -= 1
        if not self._waiting[tenant]:
            since = self._waits_since.pop(tenant)
            if since < now:
                self._backlogged[tenant].append((since, now))
