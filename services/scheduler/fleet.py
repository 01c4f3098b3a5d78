"""The live workers: who they are, what they last said, until when to believe it."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from services.core.clock import Clock
from services.core.errors import AlreadyExists, Unavailable
from services.core.reports import WorkerReport
from services.core.types import Digest, Fingerprint, WorkerId
from services.policies.placement.cost import place
from services.policies.placement.views import Wish, WorkerView


@dataclass(frozen=True, slots=True)
class Identity:
    """Does not change while a worker lives."""

    id: WorkerId
    address: str
    base_model: str
    base_fingerprint: Fingerprint
    device: str


@dataclass(frozen=True, slots=True)
class Worker:
    identity: Identity
    report: WorkerReport
    age_seconds: float


@dataclass(slots=True, eq=False)
class _Member:
    identity: Identity
    report: WorkerReport
    reported_at: float
    placed_since: int = field(default=0)  # placements that no report has shown yet


class Fleet:
    def __init__(self, clock: Clock, *, lease_seconds: float) -> None:
        self._clock = clock
        self._members: dict[WorkerId, _Member] = {}
        self._watchers: set[Callable[[], None]] = set()
        self.lease_seconds = lease_seconds

    def join(self, identity: Identity, report: WorkerReport) -> "Seat":
        """Raises AlreadyExists while another live worker has this id."""
        self._expire()
        held = self._members.get(identity.id)
        if held is not None and held.identity.address != identity.address:
            raise AlreadyExists(f"worker {identity.id} is alive at {held.identity.address}")
        member = _Member(identity, report, self._clock.now())
        self._members[identity.id] = member
        self.tell()
        return Seat(self, member)

    def now(self) -> float:
        return self._clock.now()

    def place(self, wish: Wish) -> Identity:
        """Raises Unavailable if no live worker can run it."""
        self._expire()
        chosen = place(wish, [_view(member) for member in self._members.values()])
        if chosen is None:
            raise Unavailable(f"no worker for {wish.base_model} is live; try again later")
        self._members[chosen].placed_since += 1
        return self._members[chosen].identity

    def open(self) -> tuple[Identity, ...]:
        """Who takes requests, by id."""
        self._expire()
        members = sorted(self._members.items())
        return tuple(member.identity for _, member in members if not member.report.draining)

    @contextmanager
    def watched(self, told: Callable[[], None]) -> Iterator[None]:
        """`told` is called when `open` may be another. Who looks sees leases that ran out."""
        self._watchers.add(told)
        try:
            yield
        finally:
            self._watchers.discard(told)

    def tell(self) -> None:
        for told in self._watchers:
            told()

    def workers(self) -> list[Worker]:
        self._expire()
        now = self._clock.now()
        return [
            Worker(member.identity, member.report, now - member.reported_at)
            for _, member in sorted(self._members.items())
        ]

    def holds(self, member: "_Member") -> bool:
        """Whether this very membership is still good, not a later one of the same worker."""
        self._expire()
        return self._members.get(member.identity.id) is member

    def drop(self, member: "_Member") -> None:
        if self.holds(member):
            del self._members[member.identity.id]
            self.tell()

    def _expire(self) -> None:
        oldest = self._clock.now() - self.lease_seconds
        self._members = {
            worker: member
            for worker, member in self._members.items()
            if member.reported_at >= oldest
        }


class Seat:
    """One membership of one worker; a worker that attaches again gets another."""

    def __init__(self, fleet: Fleet, member: _Member) -> None:
        self._fleet = fleet
        self._member = member
        self.worker = member.identity.id

    def report(self, report: WorkerReport) -> None:
        """Renews the lease. Raises Unavailable if it ran out: the worker must join again."""
        if not self._fleet.holds(self._member):
            raise Unavailable("the lease ran out; attach again")
        drains = report.draining != self._member.report.draining
        self._member.report, self._member.placed_since = report, 0
        self._member.reported_at = self._fleet.now()
        if drains:
            self._fleet.tell()

    def leave(self) -> None:
        self._fleet.drop(self._member)


def wish_for(
    base_model: str, base_fingerprint: str, adapter: str, excluded: Collection[str]
) -> Wish:
    return Wish(
        base_model=base_model,
        base_fingerprint=Fingerprint(base_fingerprint) if base_fingerprint else None,
        adapter=Digest(adapter) if adapter else None,
        excluded=frozenset(WorkerId(worker) for worker in excluded),
    )


def _view(member: _Member) -> WorkerView:
    report = replace(member.report, running=member.report.running + member.placed_since)
    return WorkerView(
        id=member.identity.id,
        base_model=member.identity.base_model,
        base_fingerprint=member.identity.base_fingerprint,
        running=report.running,
        waiting=report.waiting,
        free_pages=report.free_pages,
        resident=frozenset(report.resident),
        draining=report.draining,
    )
