"""What workers are seen to do, and who of them is named to gateways."""

import pytest

from services.core.clock import ManualClock
from services.core.reports import AdapterLoad, AdapterPlace, SequenceLoad, WorkerReport
from services.core.types import Digest, Fingerprint, RequestId, TenantId, WorkerId
from services.policies.autoscaling import Rules
from services.policies.migration.loads import Debts
from services.scheduler.demand import Demand, Demands, TenantDebt
from services.scheduler.figures import figures
from services.scheduler.fleet import Fleet, Seat
from services.scheduler.orders import Preload, TellSequences
from services.scheduler.wishes import Pin, WorkerState, WorkerWish
from services.scheduler.worker import Identity

ADAPTER = Digest("a" * 64)


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.fleet = Fleet(self.clock, lease_seconds=3.0, stuck_seconds=2.0)

    def join(self, worker: str, report: WorkerReport | None = None) -> Seat:
        identity = Identity(WorkerId(worker), worker, "base", Fingerprint("f"), "cpu")
        return self.fleet.join(identity, report or WorkerReport())

    def wish(self, worker: str, wish: WorkerWish) -> None:
        self.fleet.wishes.workers[WorkerId(worker)] = wish
        self.fleet.tell()

    @property
    def states(self) -> dict[str, WorkerState]:
        return {worker.identity.id: worker.state for worker in self.fleet.workers()}

    @property
    def open(self) -> list[str]:
        return [worker.id for worker in self.fleet.open()]


@pytest.mark.parametrize(
    ("wish", "state", "named"),
    [
        (WorkerWish.SERVE, WorkerState.SERVING, ["w"]),
        (WorkerWish.CORDON, WorkerState.CORDONED, []),
        (WorkerWish.DRAIN, WorkerState.DRAINING, []),
    ],
)
def test_a_worker_does_what_is_wished_of_it(
    wish: WorkerWish, state: WorkerState, named: list[str]
) -> None:
    world = World()
    world.join("w")
    world.wish("w", wish)
    assert world.states == {"w": state}
    assert world.open == named


def test_a_wish_holds_for_a_worker_that_is_away_and_comes_back() -> None:
    world = World()
    world.wish("w", WorkerWish.CORDON)
    world.wish("served", WorkerWish.SERVE)
    assert world.states == {"w": WorkerState.AWAY}
    world.join("w")
    assert world.states == {"w": WorkerState.CORDONED}


@pytest.mark.parametrize(
    ("last", "wish"),
    [
        (WorkerReport(draining=True), WorkerWish.CORDON),
        (WorkerReport(draining=True, running=1), WorkerWish.DRAIN),
        (WorkerReport(draining=True, waiting=1), WorkerWish.DRAIN),
        (WorkerReport(), WorkerWish.DRAIN),
    ],
    ids=["drained", "something runs", "something waits", "it has not heard of it"],
)
@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "is silent"])
def test_who_was_to_drain_and_has_is_cordoned_when_it_is_gone(
    last: WorkerReport, wish: WorkerWish, *, leaves: bool
) -> None:
    world = World()
    seat = world.join("w")
    world.wish("w", WorkerWish.DRAIN)
    seat.report(last)
    if leaves:
        seat.leave()
    else:
        world.clock.advance(3.1)
    assert world.states == {"w": WorkerState.AWAY}
    assert world.fleet.wishes.workers["w"] is wish  # type: ignore[index]
    assert world.fleet.drained == (["w"] if wish is WorkerWish.CORDON else [])


def test_who_stops_by_itself_is_not_cordoned() -> None:
    world = World()
    seat = world.join("w")
    seat.report(WorkerReport(draining=True))
    seat.leave()
    world.join("w")
    assert world.states == {"w": WorkerState.SERVING}


def test_a_worker_whose_steps_stand_still_is_stuck_until_they_move() -> None:
    world = World()
    seat = world.join("w", WorkerReport(running=1, steps=5))
    for _ in range(3):
        world.clock.advance(1.0)
        assert world.open == (["w"] if world.clock.now() <= 2.0 else [])
        seat.report(WorkerReport(running=1, steps=5))
    assert world.states == {"w": WorkerState.STUCK}
    assert world.open == []
    seat.report(WorkerReport(running=1, steps=6))
    assert world.states == {"w": WorkerState.SERVING}
    assert world.open == ["w"]


def test_who_is_silent_is_named_until_its_lease_ends() -> None:
    world = World()
    world.fleet.stuck_seconds = 100.0
    world.join("silent")
    seat = world.join("w")
    for _ in range(3):
        assert world.open == ["silent", "w"]
        world.clock.advance(1.0)
        seat.report(WorkerReport())
    world.clock.advance(0.5)
    assert world.open == ["w"]


def test_a_worker_that_has_nothing_to_run_is_not_stuck() -> None:
    world = World()
    seat = world.join("w", WorkerReport(steps=5))
    for _ in range(3):
        world.clock.advance(1.0)
        seat.report(WorkerReport(steps=5))
    seat.report(WorkerReport(running=1, steps=5))  # its first step has only begun
    assert world.states == {"w": WorkerState.SERVING}


def test_adapters_are_as_it_said_last_and_sequences_of_the_moment() -> None:
    world = World()
    loads = (AdapterLoad(ADAPTER, AdapterPlace.HOST),)
    told = (SequenceLoad(RequestId("r"), None, 1, 1),)
    seat = world.join("w", WorkerReport(adapters=loads, sequences=told))
    seat.report(WorkerReport(running=1))
    (worker,) = world.fleet.workers()
    assert worker.report.adapters == loads
    assert worker.report.sequences is None
    seat.report(WorkerReport(adapters=()))
    assert world.fleet.workers()[0].report.adapters == ()


def test_orders_are_told_once_and_to_those_that_are_there() -> None:
    world = World()
    seat = world.join("w")
    for order in (TellSequences(), Preload(ADAPTER), TellSequences()):
        world.fleet.order(WorkerId("w"), order)
    world.fleet.order(WorkerId("gone"), TellSequences())
    assert seat.orders() == [TellSequences(), Preload(ADAPTER)]
    assert seat.orders() == []


def test_a_pinned_adapter_goes_to_others_when_its_workers_do_not_serve() -> None:
    world = World()
    for name in ("a", "b", "c", "d"):
        world.join(name)
    world.fleet.wishes.pins[ADAPTER] = Pin(ADAPTER, "base", 2)

    def kept() -> set[str]:
        return {w for w in "abcd" if ADAPTER in world.fleet.kept_adapters(WorkerId(w))}

    first = kept()
    assert len(first) == 2
    (out, stays) = sorted(first)
    world.wish(out, WorkerWish.DRAIN)
    assert len(kept()) == 2
    assert stays in kept()
    assert out not in kept()


def test_gateways_are_summed_and_one_that_is_silent_wants_nothing() -> None:
    clock = ManualClock()
    demands, base = Demands(clock, lease_seconds=10), Fingerprint("f")
    demands.say(base, "one", Demand("base", 3, 2.0, 1.0, {ADAPTER: 30}))
    clock.advance(8)
    demands.say(base, "two", Demand("base", 1, 5.0, 0.5, {ADAPTER: 10}))
    together = demands.by_base()[base]
    assert (together.waiting, together.longest_wait_seconds, together.in_time) == (4, 5.0, 0.875)
    assert 35 < demands.requests_per_minute(ADAPTER) < 40
    clock.advance(3)
    assert demands.by_base()[base].waiting == 1


def test_what_is_owed_is_what_the_gateways_that_speak_say() -> None:
    clock = ManualClock()
    demands, base = Demands(clock, lease_seconds=10), Fingerprint("f")

    def debt(tenant: str, owed: float, *requests: str) -> TenantDebt:
        return TenantDebt(TenantId(tenant), owed, tuple(map(RequestId, requests)))

    assert demands.debts() == Debts()
    demands.say(base, "one", Demand(debts=(debt("t", 5.0, "a", "b"), debt("u", 1.0, "c"))))
    clock.advance(8)
    demands.say(base, "two", Demand(debts=(debt("t", 7.0, "d"),)))
    demands.say(Fingerprint("other"), "two", Demand(debts=(debt("u", 9.0, "e"),)))
    assert demands.debts().owed == {"a": 7.0, "b": 7.0, "c": 1.0, "d": 7.0, "e": 9.0}
    clock.advance(3)
    assert demands.debts().owed == {"d": 7.0, "e": 9.0}


def test_the_figures_are_of_each_base_model_that_is_there_or_asked_for() -> None:
    world = World()
    world.join("w", WorkerReport(running=7, most_sequences=10, total_pages=10, free_pages=5))
    world.join("c", WorkerReport(running=1, most_sequences=10, without_room=frozenset({ADAPTER})))
    world.wish("c", WorkerWish.CORDON)
    demands = Demands(world.clock, lease_seconds=10)
    demands.say(Fingerprint("f"), "g", Demand("base", 4))
    demands.say(Fingerprint("other"), "g", Demand("cold", 1))
    base, cold = figures(world.fleet.workers(), demands, Rules())
    assert (base.base_model, base.waiting, base.pages_used, base.wanted) == ("base", 4, 0.5, 2)
    assert base.states == {WorkerState.SERVING: 1, WorkerState.CORDONED: 1}
    assert base.pins_without_room == 1
    assert (cold.base_model, cold.wanted) == ("cold", 1)
