"""A gateway's choice among workers, kept up to date as they change: that of a look at each."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.reports import StepTimes
from services.core.types import Digest, RequestId, Room, SamplingParams, TokenPiece, WorkerId
from services.gateway.course import Job
from services.gateway.line import Line
from services.gateway.lines import FEW, Lines
from services.gateway.worker_room import WorkerIdentity, WorkerRoom
from services.policies.placement.cost import fetch_ms, place
from services.policies.placement.homes import homes
from services.policies.placement.index import NEAR
from services.policies.placement.views import Wish
from tests.paper_worker import CARD

ADAPTERS = [Digest(letter) for letter in "abc"]


class RoomLine(WorkerRoom):
    """A line without a call: its worker says what tests say."""

    def __init__(self, name: str, lines: Lines) -> None:
        identity = WorkerIdentity(WorkerId(name), "", CARD.name, CARD.fingerprint)
        super().__init__(identity, lambda: lines.put(self))
        lines.put(self)

    def prefetch(self, adapter: Digest) -> None:
        raise NotImplementedError

    def follow(self, job: Job, seconds: float) -> AsyncGenerator[TokenPiece, None]:
        raise NotImplementedError


def a_job(name: str, adapter: Digest | None, prompt: int, most: int) -> Job:
    return Job(
        RequestId(name), CARD.name, CARD.fingerprint, adapter, (1,) * prompt,
        SamplingParams(max_tokens=most), "salt", adapter_rank=16,
    )  # fmt: skip


names = st.integers(0, NEAR - 1).map(lambda number: f"w{number:02}")
rooms = st.builds(
    Room,
    sequences=st.integers(0, 3),
    tokens=st.sampled_from([0, 100, 300]),
    output_share=st.sampled_from([0.2, 1.0]),
    running=st.integers(0, 3),
    waiting=st.integers(0, 1),
)
jobs = st.tuples(
    st.sampled_from([None, *ADAPTERS]), st.sampled_from([10, 150]), st.sampled_from([50, 200])
)
paces = st.sampled_from([None, StepTimes(30.0, 0.2, 0.2), StepTimes(15.0, 0.1, 0.1)])
events = st.one_of(
    st.tuples(st.just("says"), names, rooms, paces, st.frozensets(st.sampled_from(ADAPTERS))),
    st.tuples(st.just("asked"), jobs),
    st.tuples(st.just("began"), st.integers(0, 9)),
    st.tuples(st.just("left"), st.integers(0, 9)),
    st.tuples(st.just("doubted"), names, st.booleans()),
    st.tuples(st.sampled_from(["broke", "unnamed"]), names),
)


class Gateway:
    """`open`: its lines; `given`: what was promised, and not begun."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.open: dict[str, RoomLine] = {}
        self.named: set[str] = set()
        self.given: list[tuple[RoomLine, Job]] = []
        self.count = 0

    def ask(self, adapter: Digest | None, prompt: int, most: int) -> None:
        self.count += 1
        job = a_job(f"r{self.count}", adapter, prompt, most)
        chosen = self.lines.place(job)
        fits = [line for line in self.open.values() if line.fits(job)]
        assert (chosen.view.id if chosen else None) == self.best(job, fits)
        nearest = self.lines.nearest(job)
        assert (nearest.view.id if nearest else None) == self.best(job, [*self.open.values()])
        if isinstance(chosen, RoomLine):
            chosen.promise(job)
            self.given.append((chosen, job))

    def best(self, job: Job, lines: list[RoomLine]) -> WorkerId | None:
        named = {WorkerId(name): 1.0 for name in self.named}
        at_home = homes(job.adapter, named, 1) if job.adapter and named else ()
        wish = Wish(
            CARD.name, CARD.fingerprint, job.adapter, prompt_tokens=len(job.prompt),
            output_tokens=job.sampling.max_tokens, rank=job.adapter_rank, fetch_ms=fetch_ms(0),
            homes=frozenset(at_home),
        )  # fmt: skip
        return place(wish, [line.view for line in lines])

    def happens(self, what: str, *how: Any) -> None:
        match what, how:
            case "says", [name, room, pace, resident]:
                if name not in self.open:
                    self.open[name] = RoomLine(name, self.lines)
                self.named.add(name)
                line = self.open[name]
                line.measured(room, line._dealt + len(line._sent), pace=pace, resident=resident)
            case "asked", [job]:
                self.ask(*job)
            case "began", [number] if self.given:
                line, job = self.given.pop(number % len(self.given))
                line.started(job)
            case "left", [number] if self.given:
                line, job = self.given.pop(number % len(self.given))
                line.withdraw(job.request_id)
            case "doubted", [name, doubted] if name in self.open:
                self.open[name].takes(requests=not doubted)
            case "broke", [name] if name in self.open:
                line = self.open.pop(name)
                self.given = [each for each in self.given if each[0] is not line]
                line.end()
            case "unnamed", [name] if name in self.open:
                line = self.open.pop(name)
                self.given = [each for each in self.given if each[0] is not line]
                self.named.remove(name)
                self.lines.drop(WorkerId(name))


def ids(lines: Iterable[Line | None]) -> set[str]:
    return {line.view.id for line in lines if line is not None}


@settings(max_examples=200, deadline=None)
@given(st.lists(events, max_size=40))
def test_a_gateway_chooses_what_a_look_at_each_worker_does(
    happened: list[tuple[Any, ...]],
) -> None:
    gateway = Gateway()
    for what, *how in happened:
        gateway.happens(what, *how)
        there = gateway.open.values()
        assert ids(gateway.lines) == ids(there)
        assert set(gateway.lines.known) == {a for line in there for a in line.adapters}
        ready = {a for line in there if line.has_room for a in line.adapters}
        assert set(gateway.lines.ready) == ready
        assert gateway.lines.has_room == any(line.has_room for line in there)
    for adapter in (None, *ADAPTERS):
        gateway.ask(adapter, 10, 100)


def test_where_few_have_the_tokens_they_are_found_however_many_have_seats() -> None:
    lines = Lines()
    fleet = [RoomLine(f"w{number:03}", lines) for number in range(10 * FEW)]
    for number, line in enumerate(fleet):
        free = 1000 if number in (5, 600) else 100
        line.measured(Room(sequences=4, tokens=free, running=number % 7 + 1), 0)
    job = a_job("r", None, 200, 300)
    assert ids([lines.place(job)]) == {"w005"}  # of equals the lowest
    for number in (5, 600):
        fleet[number].takes(requests=False)
    assert lines.place(job) is None
    fits = replace(job, prompt=(1,) * 10, sampling=SamplingParams(max_tokens=90))
    assert lines.place(fits) is not None


def test_one_that_was_doubted_and_breaks_is_gone() -> None:
    lines = Lines()
    line = RoomLine("w1", lines)
    line.measured(Room(sequences=1, tokens=100), 0)
    line.takes(requests=False)
    assert (len(lines), lines.has_room) == (1, False)
    line.end()
    assert len(lines) == 0
    assert lines.homes(CARD.fingerprint, ADAPTERS[0]) == {"w1"}  # until it is named no more
