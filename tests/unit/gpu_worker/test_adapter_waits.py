"""What a first piece says that its request waited for its adapter."""

import pytest

from services.core.clock import ManualClock
from services.core.types import AdapterWait, Digest, RequestId, SamplingParams
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.engine.sequence import EngineRequest
from services.simulator.replica import TOKEN, replica
from services.simulator.step_time import StepTime

POOL = 100
OURS, THEIRS = Digest("a" * 64), Digest("b" * 64)
SECOND = StepTime(decode_milliseconds=1000.0)


class Pages:
    """An adapter of ten pages of one token."""

    pages = 10
    size_bytes = 0


class Bench:
    """An engine on a clock of its own, and what its first pieces said."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pool = Pool(POOL, page_tokens=1, keeps_prefixes=False)
        self.engine: Engine = replica(self.clock, SECOND, self.pool, max_sequences=8)
        self.waits: dict[RequestId, AdapterWait | None] = {}

    def ask(
        self,
        name: str,
        adapter: Digest | None = None,
        *,
        prompt: int = 5,
        output: int = 5,
        stop: bool = False,
    ) -> None:
        """`stop`: after one token."""
        stops = (TOKEN,) if stop else ()
        sampling = SamplingParams(max_tokens=output, ignore_eos=True, stop_tokens=stops)
        request = EngineRequest(RequestId(name), (1,) * prompt, sampling, adapter)
        self.engine.submit(request, self.clock.now())

    def load(self, adapter: Digest) -> None:
        assert self.engine.reserve(adapter, Pages()) is not None
        self.engine.activate(adapter)

    def step(self) -> int:
        """How many wait."""
        report = self.engine.step(self.clock.now())
        for request, piece in report.pieces:
            if piece.adapter_wait is not None:
                assert request not in self.waits, "it said so twice"
            self.waits.setdefault(request, piece.adapter_wait)
        return report.waiting

    def waited(self, name: str) -> float:
        wait = self.waits[RequestId(name)]
        assert wait is not None
        return wait.seconds


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_is_from_when_the_request_could_have_run_to_when_it_does(bench: Bench) -> None:
    bench.ask("cold", OURS)
    bench.step()
    bench.clock.advance(2.5)
    bench.load(OURS)
    bench.ask("warm", OURS)
    bench.step()
    assert bench.waited("cold") == 2.5
    assert bench.waited("warm") == 0.0


def test_who_waits_for_memory_does_not_wait_for_its_adapter(bench: Bench) -> None:
    bench.ask("large", prompt=40, output=55)
    bench.step()
    bench.ask("cold", OURS)
    for _ in range(54):
        bench.step()
    assert bench.engine.reserve(OURS, Pages()) is not None
    bench.step()
    since = bench.clock.now()
    bench.engine.activate(OURS)
    bench.step()
    assert since > 50
    assert bench.waited("cold") < 5


def test_who_had_to_give_way_says_it_once(bench: Bench) -> None:
    bench.load(OURS)
    for number in range(60):
        bench.ask(f"short {number}", output=50, stop=True)
        bench.step()
    bench.ask("first", OURS, output=60)
    bench.ask("second", OURS, output=60)
    waiting = 0
    for _ in range(130):
        waiting = max(waiting, bench.step())
    assert waiting == 1, "it was not given less room than it needed"
    assert bench.waited("first") == bench.waited("second") == 0.0


def test_a_worker_that_never_had_an_adapter_says_nothing(bench: Bench) -> None:
    bench.ask("base")
    bench.step()
    assert bench.waits == {RequestId("base"): None}


def test_slots_are_what_sequences_leave_room_for(bench: Bench) -> None:
    bench.load(OURS)
    bench.ask("idle")
    bench.step()
    bench.ask("other", prompt=30, output=30)
    bench.step()
    slots = {name: wait.slots for name, wait in bench.waits.items() if wait is not None}
    assert slots == {"idle": 9, "other": 3}
    assert bench.waits[RequestId("other")] == AdapterWait(0.0, 2, 3)


def test_there_is_a_slot_for_who_is_there(bench: Bench) -> None:
    bench.load(OURS)
    bench.ask("full", OURS, prompt=40, output=50)
    bench.step()
    wait = bench.waits[RequestId("full")]
    assert wait is not None
    assert wait.slots == 1
