"""The live workers: who they are, what they last said, until when to believe it."""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from services.core.clock import Clock
from services.core.errors import AlreadyExists, InvalidRequest, Unavailable
from services.core.reports import AdapterChanges, AdapterPlace, WorkerReport
from services.core.types import Digest, Fingerprint, WorkerId
from services.policies.placement.cost import place
from services.policies.placement.views import UNKNOWN_EVICTS_MS, UNKNOWN_TIMES, Wish, WorkerView
from services.scheduler.orders import Order
from services.scheduler.wishes import Wishes, WorkerState, WorkerWish
from services.scheduler.worker import Identity, Worker

UNCHANGED = AdapterChanges()


@dataclass(slots=True, eq=False)
class _Member:
    identity: Identity
    report: WorkerReport
    reported_at: float
    stepped_at: float  # when its steps were last seen to move, or nothing to run
    placed_since: int = field(default=0)  # placements that no report has shown yet
    orders: list[Order] = field(default_factory=list)  # that it was not told yet
    woken: Callable[[], None] = field(default=lambda: None)

    @property
    def has_drained(self) -> bool:
        report = self.report
        return report.draining and not (report.running or report.waiting)


class Fleet:
    def __init__(
        self,
        clock: Clock,
        *,
        lease_seconds: float,
        stuck_seconds: float = 30.0,
        wishes: Wishes | None = None,
    ) -> None:
        """`stuck_seconds`: how long steps may stop while something runs."""
        self._clock = clock
        self._members: dict[WorkerId, _Member] = {}
        self._watchers: set[Callable[[], None]] = set()
        self.stuck_seconds = stuck_seconds
        self._open: tuple[Identity, ...] | None = None  # None once it may be another
        self._kept: tuple[object, dict[WorkerId, list[Digest]]] = (None, {})
        self._silent_since = math.inf  # who was heard least lately, or before
        self._still_since = math.inf  # who serves and stepped least lately, or before
        self.lease_seconds = lease_seconds
        self.wishes = wishes or Wishes()
        self.drained: list[WorkerId] = []
        """Who left with nothing left to do, as it was to: cordoned, which SQL does not say yet."""

    def join(self, identity: Identity, report: WorkerReport) -> "Seat":
        """Raises AlreadyExists while another live worker has this id."""
        self._expire()
        held = self._members.get(identity.id)
        if held is not None and held.identity.address != identity.address:
            raise AlreadyExists(f"worker {identity.id} is alive at {held.identity.address}")
        now = self._clock.now()
        member = _Member(identity, _kept_of(report, None), now, now)
        self._members[identity.id] = member
        self._silent_since = min(self._silent_since, now)
        self.tell()
        return Seat(self, member)

    def now(self) -> float:
        return self._clock.now()

    def place(self, wish: Wish) -> Identity:
        """Raises Unavailable if no live worker can run it."""
        self._expire()
        chosen = place(wish, self.views())
        if chosen is None:
            raise Unavailable(f"no worker for {wish.base_model} is live; try again later")
        self._members[chosen].placed_since += 1
        return self._members[chosen].identity

    def views(self) -> list[WorkerView]:
        """The live workers, as placement sees them."""
        now = self._clock.now()
        return [_view(member, self._state(member, now)) for member in self._members.values()]

    def open(self) -> tuple[Identity, ...]:
        """Who takes requests, by id."""
        self._expire()
        if self._open is None or self._clock.now() - self._still_since > self.stuck_seconds:
            now, members = self._clock.now(), self._members.values()
            serving = [m for m in members if self._state(m, now) is WorkerState.SERVING]
            serving.sort(key=lambda member: member.identity.id)
            self._open = tuple(member.identity for member in serving)
            self._still_since = min((member.stepped_at for member in serving), default=math.inf)
        return self._open

    def kept_adapters(self, worker: WorkerId) -> list[Digest]:
        """Those that the operator has pinned there: to some of the workers that serve."""
        if not self.wishes.pins:
            return []
        serving = self.open()
        pins = tuple(self.wishes.pins.values())
        if self._kept[0] != (serving, pins):
            by_model: dict[str, list[WorkerId]] = {}
            for identity in serving:
                by_model.setdefault(identity.base_model, []).append(identity.id)
            self._kept = (serving, pins), self.wishes.kept_on(by_model)
        return self._kept[1].get(worker, [])

    @contextmanager
    def watched(self, told: Callable[[], None]) -> Iterator[None]:
        """`told` is called when `open` may be another. Who looks sees leases that ran out, and
        workers that are stuck."""
        self._watchers.add(told)
        try:
            yield
        finally:
            self._watchers.discard(told)

    def tell(self) -> None:
        """Wishes of workers are others, or who is there."""
        self._open = None
        for told in self._watchers:
            told()

    def live(self) -> list[Worker]:
        """By id."""
        self._expire()
        now, wishes = self._clock.now(), self.wishes.workers
        return [
            Worker(
                member.identity,
                member.report,
                now - member.reported_at,
                self._state(member, now),
                wishes.get(worker),
            )
            for worker, member in sorted(self._members.items())
        ]

    def workers(self) -> list[Worker]:
        """By id: those that are live, and those that the operator keeps from serving."""
        live = self.live()
        known = {worker.identity.id for worker in live}
        away = [
            Worker.away(worker, wish)
            for worker, wish in self.wishes.workers.items()
            if worker not in known and wish is not WorkerWish.SERVE
        ]
        return sorted(live + away, key=lambda worker: worker.identity.id)

    def order(self, worker: WorkerId, order: Order) -> None:
        """At once; one that is gone is told nothing."""
        member = self._members.get(worker)
        if member is not None and order not in member.orders:
            member.orders.append(order)
            member.woken()

    def wake(self, worker: WorkerId) -> None:
        """Something else is wanted of it."""
        if worker in self._members:
            self._members[worker].woken()

    def holds(self, member: "_Member") -> bool:
        """Whether this very membership is still good, not a later one of the same worker."""
        self._expire()
        return self._members.get(member.identity.id) is member

    def drop(self, member: "_Member") -> None:
        if self.holds(member):
            del self._members[member.identity.id]
            self._gone(member)
            self.tell()

    def _gone(self, member: "_Member") -> None:
        """Its drain was carried out: if it comes back it is not to drain again."""
        worker = member.identity.id
        if member.has_drained and self.wishes.workers.get(worker) is WorkerWish.DRAIN:
            self.wishes.workers[worker] = WorkerWish.CORDON
            self.drained.append(worker)

    def _state(self, member: _Member, now: float) -> WorkerState:
        wish = self.wishes.workers.get(member.identity.id)
        if now - member.stepped_at > self.stuck_seconds:
            return WorkerState.STUCK
        if member.report.draining or wish is WorkerWish.DRAIN:
            return WorkerState.DRAINING
        return WorkerState.CORDONED if wish is WorkerWish.CORDON else WorkerState.SERVING

    def _expire(self) -> None:
        """It looks at each only when one of them may have been silent for too long."""
        oldest = self._clock.now() - self.lease_seconds
        if self._silent_since >= oldest:
            return
        silent = [member for member in self._members.values() if member.reported_at < oldest]
        for member in silent:
            del self._members[member.identity.id]
            self._gone(member)
        heard = (member.reported_at for member in self._members.values())
        self._silent_since = min(heard, default=math.inf)
        if silent:
            self._open = None


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
        member, now = self._member, self._fleet.now()
        is_another = report.draining != member.report.draining
        was_stuck = now - member.stepped_at > self._fleet.stuck_seconds
        if report.steps != member.report.steps or not (report.running and member.report.running):
            member.stepped_at = now
            is_another |= was_stuck
        member.report, member.placed_since = _kept_of(report, member.report), 0
        member.reported_at = now
        if is_another:
            self._fleet.tell()

    def on_order(self, woken: Callable[[], None]) -> None:
        """`woken` is called when there is something to tell."""
        self._member.woken = woken

    def orders(self) -> list[Order]:
        """Those that it was not told yet."""
        told, self._member.orders = self._member.orders, []
        return told

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


def _kept_of(report: WorkerReport, before: WorkerReport | None) -> WorkerReport:
    """Without what is of the moment, and with the adapters that it said last. Raises
    InvalidRequest for changes of what was not said."""
    resident, adapters = report.resident, report.adapters
    known = before.adapters if before is not None else None
    changes = report.changes
    if changes is None:
        adapters = known if adapters is None else adapters
    elif before is None or known is None:
        raise InvalidRequest.of("adapter_changes", "the first report of a call tells all adapters")
    elif changes == UNCHANGED:
        resident, adapters = before.resident, known
    else:
        adapters = changes.after(known)
        resident = tuple(e.digest for e in adapters if e.place is AdapterPlace.DEVICE)
    return replace(
        report, resident=resident, adapters=adapters, changes=None, sequences=None, moved=()
    )


def _view(member: _Member, state: WorkerState) -> WorkerView:
    report = member.report
    return WorkerView(
        id=member.identity.id,
        base_model=member.identity.base_model,
        base_fingerprint=member.identity.base_fingerprint,
        running=report.running + member.placed_since,
        waiting=report.waiting,
        free_pages=report.free_pages,
        resident=frozenset(report.resident),
        draining=state is not WorkerState.SERVING,
        step_times=report.step_times or UNKNOWN_TIMES,
        most_sequences=report.most_sequences,
        free_tokens=report.free_pages * report.page_tokens if report.page_tokens else None,
        host=frozenset(
            load.digest for load in report.adapters or () if load.place is AdapterPlace.HOST
        ),
        evicts_ms=UNKNOWN_EVICTS_MS,
        load_times=report.load_times,
    )
