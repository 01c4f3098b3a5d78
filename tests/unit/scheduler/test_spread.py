"""On how many workers adapters are at home, and what is brought there before it is asked for."""

import pytest

from services.core.clock import ManualClock
from services.core.reports import AdapterLoad, AdapterPlace, WorkerReport
from services.core.types import Digest, Fingerprint, WorkerId
from services.scheduler.fleet import Fleet, Seat
from services.scheduler.orders import Preload
from services.scheduler.spread import AGAIN_SECONDS, Spread
from services.scheduler.wishes import Pin
from services.scheduler.worker import Identity

HOT, COLD, BASE = Digest("a" * 64), Digest("c" * 64), Fingerprint("f")


class World:
    def __init__(self, workers: int = 4) -> None:
        self.clock = ManualClock()
        self.fleet = Fleet(self.clock, lease_seconds=1e9, stuck_seconds=1e9)
        self.spread = Spread(self.fleet, self.clock)
        self.seats = {str(number): self.join(str(number)) for number in range(workers)}

    def join(self, name: str) -> Seat:
        identity = Identity(WorkerId(name), name, "base", BASE, "cpu")
        return self.fleet.join(identity, WorkerReport(most_sequences=10))

    def say(self, worker: str, *, running: int = 0, draining: bool = False, has: str = "") -> None:
        adapters = tuple(AdapterLoad(Digest(each * 64), AdapterPlace.HOST) for each in has)
        report = WorkerReport(
            running=running, most_sequences=10, draining=draining, adapters=adapters
        )
        self.seats[worker].report(report)

    def ask(self, seconds: int, requests: int, adapter: Digest = HOT) -> None:
        """So many each second."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.spread.arrived(BASE, {adapter: requests})
            self.spread.settle()

    def preloads(self) -> dict[str, list[Digest]]:
        self.spread.preload(self.spread.expected())
        told = {name: seat.orders() for name, seat in self.seats.items()}
        return {
            name: [order.adapter for order in orders if isinstance(order, Preload)]
            for name, orders in told.items()
            if orders
        }


def test_an_adapter_that_keeps_workers_busy_has_more_homes_until_it_is_cold() -> None:
    world = World()
    for name in world.seats:
        world.say(name, running=10)
    assert (world.spread.count(HOT), world.spread.counts()) == (1, {})
    world.ask(120, 10)
    hot = world.spread.count(HOT)
    assert hot > 4  # four workers that are full of it are more than half of each of four
    assert world.spread.counts() == {HOT: hot}
    assert world.spread.count(COLD) == 1
    world.ask(3600, 0, COLD)
    assert (world.spread.count(HOT), world.spread.counts()) == (1, {})


@pytest.mark.parametrize(("running", "homes"), [(1, 1), (10, 9)])
def test_requests_are_as_much_work_as_they_run_long(running: int, homes: int) -> None:
    """Little's law: of 10 a second 4 run, of 0.4 s each, or 40, of 4 s each, four workers' work;
    with a quarter to spare, half of a worker for one home, that is up to ten homes."""
    world = World()
    for name in world.seats:
        world.say(name, running=running)
    world.ask(120, 10)
    assert world.spread.count(HOT) == pytest.approx(homes, abs=1 if homes > 1 else 0)


def test_what_came_before_anything_was_seen_is_not_taken_for_work() -> None:
    """A leader that begins while workers are full: nobody knows how often requests come."""
    world = World()
    for name in world.seats:
        world.say(name, running=10)
    world.ask(5, 100)  # of 0.4 s each: 4 workers' work, of which chance explains much as yet
    assert world.spread.count(HOT) < 6


def test_a_pin_is_a_floor() -> None:
    world = World()
    world.fleet.wishes.pins[COLD] = Pin(COLD, "base", 3)
    assert (world.spread.count(COLD), world.spread.counts()) == (3, {COLD: 3})
    world.fleet.wishes.pins[HOT] = Pin(HOT, "base", 2)
    for name in world.seats:
        world.say(name, running=10)
    world.ask(120, 10)
    assert world.spread.counts()[HOT] == world.spread.count(HOT) > 2


def test_a_base_model_without_workers_is_no_error() -> None:
    world = World(workers=0)
    world.ask(400, 10)
    assert world.spread.counts() == {}
    assert world.preloads() == {}


def test_what_is_expected_goes_to_its_home_unless_that_has_it() -> None:
    world = World()
    world.ask(400, 1)
    ((home, adapters),) = world.preloads().items()
    assert adapters == [HOT]
    world.say(home, has="a")
    assert world.preloads() == {}
    world.fleet.wishes.pins[HOT] = Pin(HOT, "base", 2)
    ((second, adapters),) = world.preloads().items()
    assert (second != home, adapters) == (True, [HOT])


def test_what_its_home_has_though_nobody_ordered_it_is_not_brought() -> None:
    world, other = World(), World()
    other.ask(400, 1)
    (home,) = other.preloads()
    world.say(home, has="a")
    world.ask(400, 1)
    assert world.preloads() == {}


def test_what_a_worker_has_no_room_for_is_not_brought_again_and_again() -> None:
    world = World()
    world.ask(400, 1)
    ((home, _),) = world.preloads().items()
    world.say(home, has="a")
    world.say(home, has="b")  # it left for another
    assert world.preloads() == {}
    world.ask(int(AGAIN_SECONDS), 1)
    assert list(world.preloads()) == [home]


def test_nothing_is_brought_to_who_drains() -> None:
    world = World()
    world.ask(400, 1)
    (home,) = world.preloads()
    world.say(home, draining=True)
    (other,) = world.preloads()
    assert other != home
    for name in world.seats:
        world.say(name, draining=True)
    assert world.preloads() == {}


def test_what_nobody_asks_for_any_more_is_not_brought() -> None:
    world = World()
    world.ask(400, 1)
    world.clock.advance(4 * 3600)
    assert world.preloads() == {}
