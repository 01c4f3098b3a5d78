"""Rounds of moves: what workers say goes in, what they are to do comes out."""

from dataclasses import dataclass, field, replace

from services.core.reports import (
    AdapterLoad,
    AdapterPlace,
    Moved,
    MoveOutcome,
    SequenceLoad,
    SequenceSums,
    WorkerReport,
)
from services.core.types import Digest, Fingerprint, RequestId, WorkerId
from services.policies.migration.loads import Debts, PlannedMove, Reason
from services.scheduler.control import Control, Rules
from services.scheduler.migrations import Migration
from services.scheduler.wishes import WorkerState
from services.scheduler.worker import Identity, Worker
from tests.drains import Drains


@dataclass(slots=True)
class World:
    """Workers as they are reported, and the control that is to empty or even them out."""

    rules: Rules
    held: dict[str, list[str]]
    states: dict[str, WorkerState] = field(default_factory=dict)
    now: float = 0.0
    sums: bool = False  # that workers report
    control: Control = field(init=False)

    def __post_init__(self) -> None:
        self.control = Control(self.rules, term=7, now=0.0)

    @property
    def fleet(self) -> list[Worker]:
        return [
            Worker(
                Identity(WorkerId(name), f"{name}:1", "base", Fingerprint("f"), "cpu"),
                WorkerReport(
                    running=len(requests), total_pages=100, free_pages=90, page_tokens=10,
                    most_sequences=8,
                    sums=SequenceSums.of(loads(requests)) if self.sums else None,
                ),
                0.0,
                self.states.get(name, WorkerState.SERVING),
            )
            for name, requests in self.held.items()
        ]  # fmt: skip

    def tell(self, *workers: str) -> None:
        for worker in workers:
            self.control.told(WorkerId(worker), loads(self.held[worker]))

    def round(self) -> list[Migration]:
        """A whole one, if it is due: all tell, and a plan of drains is carried out."""
        if not self.control.is_due(self.fleet, self.now):
            return []
        self.tell(*self.control.ask(self.fleet, self.now, by_operator=False))
        loads = self.control.loads(self.fleet, self.now)
        assert loads is not None
        planned = Drains().plan(loads, self.now, Debts())
        return self.control.orders(planned, self.fleet, self.now)

    def carry_out(self, moves: list[Migration], end: MoveOutcome = MoveOutcome.LEFT) -> None:
        for move in moves:
            if end is MoveOutcome.LEFT:
                self.held[move.source].remove(move.request)
                self.held[move.target].append(move.request)
        self.control.ended([Moved(move.id, move.request, end) for move in moves])


def requests(count: int) -> list[str]:
    return [f"r{number}" for number in range(count)]


def loads(requests: list[str]) -> tuple[SequenceLoad, ...]:
    return tuple(SequenceLoad(RequestId(request), None, 20, 5) for request in requests)


def draining(count: int, **rules: float) -> World:
    known = Rules(**{"most_underway": 2, **rules})  # type: ignore[arg-type]
    held = {"old": requests(count), "a": [], "b": []}
    return World(known, held, {"old": WorkerState.DRAINING})


def test_a_worker_that_drains_is_emptied_in_rounds() -> None:
    world, rounds = draining(5), []
    while world.held["old"]:
        moves = world.round()
        rounds.append(len(moves))
        world.carry_out(moves)
        world.now += 1
    assert rounds == [2, 2, 1]
    assert world.round() == []  # there is nothing left to do
    assert sorted(world.held["a"] + world.held["b"]) == requests(5)


def test_the_next_round_of_a_drain_is_due_when_the_moves_of_the_one_before_have_ended() -> None:
    world = draining(3, drain_seconds=1000)
    first, second = world.round()
    world.carry_out([first])
    assert not world.control.is_due(world.fleet, world.now)
    world.carry_out([second])
    assert world.control.is_due(world.fleet, world.now)


def test_no_more_moves_are_underway_than_a_worker_may_take_part_in() -> None:
    world = draining(5)
    first = world.round()
    assert len(first) == 2
    world.now += 1
    assert world.round() == []
    world.carry_out(first[:1])
    world.now += 1
    (next_,) = world.round()
    assert next_.request not in {move.request for move in first}


def test_a_move_of_which_nothing_is_heard_is_made_again_under_another_name() -> None:
    world = draining(1, move_seconds=30)
    (lost,) = world.round()
    world.now += 29
    assert world.round() == []
    world.now += 2
    (again,) = world.round()
    assert again.request == lost.request
    assert again.id != lost.id


def test_a_move_is_over_when_its_source_is_gone() -> None:
    world = draining(2)
    world.round()
    world.held["back"] = world.held.pop("old")
    world.control.loads(world.fleet, world.now)
    assert world.control.underway == []


def test_a_round_waits_for_all_that_were_asked_but_not_for_ever() -> None:
    world = draining(1, tell_seconds=3)
    world.control.ask(world.fleet, 0.0, by_operator=False)
    world.tell("old", "a")
    assert world.control.loads(world.fleet, 2.9) is None
    planned = world.control.loads(world.fleet, 3.0)
    assert planned is not None
    assert [load.id for load in planned] == ["old", "a"]


def test_who_has_seats_left_is_not_asked_and_is_planned_by_its_sums() -> None:
    world = World(Rules(), {"busy": requests(10), "free": ["f0"]}, sums=True)
    asked = world.control.ask(world.fleet, 0.0, by_operator=False)
    assert asked == {"busy"}
    assert world.control.loads(world.fleet, 0.1) is None
    world.tell(*asked)
    planned = world.control.loads(world.fleet, 0.1)
    assert planned is not None
    assert [len(load.sequences) for load in planned] == [10, 0]
    assert [load.others.running.count for load in planned] == [0, 1]


def test_a_round_in_which_nobody_need_be_asked_is_over_at_once() -> None:
    world = World(Rules(), {"a": ["r"], "b": []}, sums=True)
    assert world.control.ask(world.fleet, 0.0, by_operator=True) == set()
    assert len(world.control.loads(world.fleet, 0.0) or ()) == 2


def test_who_was_asked_and_did_not_tell_takes_no_part() -> None:
    world = World(Rules(tell_seconds=3), {"busy": requests(10), "free": []}, sums=True)
    world.control.ask(world.fleet, 0.0, by_operator=False)
    planned = world.control.loads(world.fleet, 3.0)
    assert planned is not None
    assert [load.id for load in planned] == ["free"]


def test_a_worker_that_went_away_is_not_waited_for() -> None:
    world = draining(1)
    world.control.ask(world.fleet, 0.0, by_operator=False)
    world.tell("old", "a")
    del world.held["b"]
    assert world.control.loads(world.fleet, 0.1) is not None


def test_who_leaves_is_not_planned_again_and_who_comes_takes_memory() -> None:
    world = draining(3)
    moves = world.round()
    world.now += 1
    world.tell(*world.control.ask(world.fleet, world.now, by_operator=False))
    loads = {load.id: load for load in world.control.loads(world.fleet, world.now) or []}
    assert [each.request for each in loads[WorkerId("old")].sequences] == ["r2"]
    for move in moves:
        assert loads[move.target].free_tokens == 900 - 20


def test_balance_is_looked_for_each_so_many_seconds() -> None:
    world = World(Rules(balance_seconds=10), {"a": requests(2), "b": []})
    assert not world.control.is_due(world.fleet, 9.9)
    assert world.control.is_due(world.fleet, 10)
    world.control.ask(world.fleet, 10, by_operator=False)
    assert not world.control.is_due(world.fleet, 21)  # that round is not over
    world.control.end_round()
    assert not world.control.is_due(world.fleet, 19.9)
    assert world.control.is_due(world.fleet, 20)


def test_balance_is_not_looked_for_where_there_is_none_to_find() -> None:
    cases: tuple[tuple[Rules, dict[str, list[str]]], ...] = (
        (Rules(balance_seconds=0), {"a": requests(2), "b": []}),
        (Rules(), {"a": requests(2)}),
        (Rules(), {"a": [], "b": []}),
    )
    for rules, held in cases:
        world = World(rules, held)
        assert not world.control.is_due(world.fleet, 1000)


def held_back(world: World) -> Migration:
    world.control.ask(world.fleet, 0, by_operator=False)
    a, b = WorkerId("a"), WorkerId("b")
    plan = [PlannedMove(RequestId("r0"), Digest("x"), a, b, Reason.BALANCE)]
    (move,) = world.control.orders(plan, world.fleet, 0)
    world.control.hold([move])
    return move


def with_adapter(fleet: list[Worker], place: AdapterPlace) -> list[Worker]:
    adapters = (AdapterLoad(Digest("x"), place),)
    return [replace(each, report=replace(each.report, adapters=adapters)) for each in fleet]


def test_a_move_waits_for_its_adapter_to_be_where_it_goes() -> None:
    world = World(Rules(), {"a": requests(1), "b": []})
    move = held_back(world)
    assert world.control.release(world.fleet, 1) == []
    assert world.control.wanted == [("b", "x")]
    assert world.control.release(with_adapter(world.fleet, AdapterPlace.LOADING), 1) == []
    there = with_adapter(world.fleet, AdapterPlace.HOST)
    assert world.control.release(there, 1) == [move]
    assert world.control.release(there, 2) == []  # once
    assert world.control.wanted == []


def test_a_move_does_not_wait_for_its_adapter_for_ever() -> None:
    world = World(Rules(fetch_seconds=5), {"a": requests(1), "b": []})
    move = held_back(world)
    assert world.control.release(world.fleet, 4.9) == []
    assert world.control.release(world.fleet, 5) == [move]


def test_what_is_not_underway_any_more_is_not_ordered() -> None:
    world = World(Rules(), {"a": requests(1), "b": []})
    world.control.withdraw([held_back(world)])
    assert world.control.release(world.fleet, 100) == []


def test_what_the_operator_asked_for_says_so() -> None:
    for by_operator, reason in ((True, Reason.OPERATOR), (False, Reason.BALANCE)):
        world = World(Rules(), {"a": requests(1), "b": []})
        world.control.ask(world.fleet, 0, by_operator=by_operator)
        a, b = WorkerId("a"), WorkerId("b")
        plan = [PlannedMove(RequestId("r0"), None, a, b, Reason.BALANCE, 1.5)]
        (move,) = world.control.orders(plan, world.fleet, 0)
        assert (move.reason, move.gain_seconds) == (reason, 1.5)


def test_nobody_is_sent_to_a_worker_that_went_away() -> None:
    world = World(Rules(), {"a": requests(1)})
    plan = [PlannedMove(RequestId("r0"), None, WorkerId("a"), WorkerId("b"), Reason.BALANCE)]
    assert world.control.orders(plan, world.fleet, 0) == []


def test_two_leaders_name_their_moves_differently() -> None:
    names = set()
    for term in (1, 2):
        world = draining(1)
        world.control = Control(world.rules, term=term, now=0.0)
        names |= {move.id for move in world.round()}
    assert len(names) == 2
