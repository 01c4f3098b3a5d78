"""A queue without any policy, replayed: nothing is lost, nothing too large, nothing at random."""

import random
from collections.abc import Collection, Iterator
from dataclasses import replace

import pytest

from services.core.errors import ResourceExhausted
from services.core.types import AdapterWait, Digest, RequestId, TenantId
from services.policies.fairness.admission import Request
from services.simulator import workloads
from services.simulator.arrivals import Arrival, arrivals, merged, poisson
from services.simulator.recording import Outcome, Recording
from services.simulator.replay import replay


class Queue:
    """First come, first served; it checks that it is told of everything in order."""

    def __init__(self, longest: int = 10**9) -> None:
        self.waiting: dict[RequestId, Request] = {}
        self.running: dict[RequestId, int] = {}
        self.ended: list[RequestId] = []
        self._longest = longest
        self._now = 0.0

    def enqueue(self, request: Request, now: float) -> None:
        self._tell(now)
        if len(self.waiting) >= self._longest:
            raise ResourceExhausted("too many wait")
        self.waiting[request.id] = request

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        self._tell(now)
        yield from list(self.waiting.values())[:1]

    def admit(self, request: RequestId, now: float) -> None:
        self._tell(now)
        del self.waiting[request]
        self.running[request] = 0

    def owed(self, request: RequestId) -> float:
        return 0.0

    def awaited(self, wait: AdapterWait, now: float) -> None:
        self._tell(now)

    def produced(self, request: RequestId, tokens: int = 1) -> None:
        self.running[request] += tokens

    def end(self, request: RequestId) -> None:
        assert (request in self.waiting) != (request in self.running)
        self.waiting.pop(request, None)
        self.running.pop(request, None)
        self.ended.append(request)

    def _tell(self, now: float) -> None:
        assert now >= self._now
        self._now = now


class AllOfThem(Queue):
    """Lets any that fits go first."""

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        yield from list(self.waiting.values())


class OneASecond(Queue):
    """Holds back by time."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
        return super().candidates(now) if now >= self._next else iter(())

    def admit(self, request: RequestId, now: float) -> None:
        super().admit(request, now)
        self._next = now + 1


def crowd(seed: int, seconds: float = 60.0) -> list[Arrival]:
    """Random lengths, some cancelled while they wait or run."""
    random_ = random.Random(seed)

    def stream(tenant: str, per_second: float) -> list[Arrival]:
        times = poisson(per_second, seconds, random_)
        lengths = ((random_.randrange(1, 300), random_.randrange(1, 200)) for _ in times)
        return arrivals(tenant, times, lengths)

    return [
        replace(a, cancel_at=a.at + random_.uniform(0, 20)) if random_.random() < 0.2 else a
        for a in merged(stream("a", 3), stream("b", 5))
    ]


def most_held(recording: Recording) -> int:
    """Tokens reserved at once, at the worst of times."""
    events = []
    for record in recording.requests:
        if record.admitted is not None:
            tokens = record.prompt_tokens + record.wanted_tokens
            ended = recording.seconds if record.ended is None else record.ended
            events += [(record.admitted, 1, tokens), (ended, 0, -tokens)]
    held = [0]
    for _, _, tokens in sorted(events):
        held.append(held[-1] + tokens)
    return max(held)


@pytest.mark.parametrize("seed", range(3))
def test_every_request_comes_to_one_end_and_nothing_is_left(seed: int) -> None:
    stream, queue = crowd(seed), Queue(longest=40)
    recording = replay(stream, queue, kv_tokens=2000, max_sequences=16)
    assert not queue.waiting
    assert not queue.running
    assert [r.id for r in recording.requests] == [a.request.id for a in stream]
    by_outcome = {o: [r for r in recording.requests if r.outcome is o] for o in Outcome}
    assert not by_outcome[Outcome.OPEN]
    assert all(by_outcome[o] for o in Outcome if o is not Outcome.OPEN)
    ended = by_outcome[Outcome.FINISHED] + by_outcome[Outcome.CANCELLED]
    assert sorted(queue.ended) == sorted(r.id for r in ended)
    for record in by_outcome[Outcome.FINISHED]:
        assert record.output_tokens == record.wanted_tokens
        assert record.admitted is not None
        assert record.first_token is not None
        assert record.ended is not None
        assert record.arrived <= record.admitted < record.first_token <= record.ended
    for record in by_outcome[Outcome.CANCELLED]:
        assert record.output_tokens < record.wanted_tokens


@pytest.mark.parametrize("seed", range(3))
def test_every_token_is_charged_once(seed: int) -> None:
    recording = replay(crowd(seed), Queue(), kv_tokens=2000)
    for tenant in recording.tenants:
        records = [r for r in recording.requests if r.tenant == tenant]
        prompts = sum(r.prompt_tokens for r in records if r.admitted is not None)
        outputs = sum(r.output_tokens for r in records)
        assert recording.service(tenant, 0, 1e9, w_p=1, w_q=0) == prompts
        assert recording.service(tenant, 0, 1e9, w_p=0, w_q=1) == outputs


@pytest.mark.parametrize("kind", [Queue, AllOfThem])
def test_memory_is_never_exceeded_and_almost_all_of_it_used(kind: type[Queue]) -> None:
    recording = replay(crowd(0), kind(), kv_tokens=2000)
    assert 1500 < most_held(recording) <= 2000
    exact = arrivals("a", [0.0] * 30, [(60, 40)] * 30)
    assert most_held(replay(exact, kind(), kv_tokens=1000)) == 1000


def test_a_replay_is_the_same_every_time() -> None:
    assert replay(crowd(1), Queue(), kv_tokens=2000) == replay(crowd(1), Queue(), kv_tokens=2000)


def test_time_is_what_the_steps_take() -> None:
    recording = replay(arrivals("a", [5.0], [(1000, 3)]), Queue())
    [record] = recording.requests
    prefill = 0.003 + 0.214
    first = (30 + 0.22 + 0.0006 * 1001) / 1000
    second = (30 + 0.22 + 0.0006 * 1002) / 1000
    assert record.admitted == 5
    assert record.first_token == pytest.approx(5 + prefill)
    assert record.ended == recording.seconds == pytest.approx(5 + prefill + first + second)


def test_who_fits_may_overtake_only_if_the_policy_offers_it() -> None:
    stream = merged(
        arrivals("large", [0.0, 0.1], [(500, 300)] * 2), arrivals("small", [0.2], [(10, 10)])
    )

    def waited(queue: Queue) -> bool:
        first, second, small = replay(stream, queue, kv_tokens=1000).requests
        assert (first.admitted, second.admitted) == (0, first.ended)
        return small.admitted == second.admitted

    assert waited(Queue())
    assert not waited(AllOfThem())


def test_sequences_are_as_limited_as_memory() -> None:
    recording = replay(arrivals("a", [0.0] * 4, [(5, 5)] * 4), Queue(), max_sequences=2)
    first, second, third, _ = recording.requests
    assert first.ended == second.ended == third.admitted


def test_a_request_that_never_fits_is_rejected_unasked() -> None:
    queue = Queue()
    recording = replay(arrivals("a", [0.0, 1.0], [(600, 401), (600, 400)]), queue, kv_tokens=1000)
    assert [r.outcome for r in recording.requests] == [Outcome.REJECTED, Outcome.FINISHED]
    assert queue.ended == [recording.requests[1].id]


def test_a_cancelled_request_gives_its_room_to_the_next() -> None:
    first, second = arrivals("a", [0.0, 0.1], [(500, 400)] * 2)
    recording = replay([replace(first, cancel_at=2.0), second], Queue(), kv_tokens=1000)
    gone, done = recording.requests
    assert gone.outcome is Outcome.CANCELLED
    assert gone.ended == done.admitted == pytest.approx(2.0, abs=0.05)
    assert 0 < gone.output_tokens < 400
    assert done.outcome is Outcome.FINISHED


def test_a_policy_that_holds_back_is_asked_again_later() -> None:
    recording = replay(arrivals("a", [0.0] * 3, [(5, 2)] * 3), OneASecond())
    assert [r.admitted for r in recording.requests] == pytest.approx([0, 1, 2], abs=0.25)


def test_a_policy_that_admits_nobody_is_an_error() -> None:
    class Wall(Queue):
        def candidates(self, now: float, resident: Collection[Digest] = ()) -> Iterator[Request]:
            return iter(())

    with pytest.raises(RuntimeError, match="held back everybody"):
        replay(arrivals("a", [0.0]), Wall())


def test_a_replay_may_end_before_its_requests() -> None:
    queue = Queue()
    recording = replay(workloads.overload(), queue, until=30)
    assert recording.seconds == pytest.approx(30, abs=0.5)
    assert all(r.arrived <= recording.seconds for r in recording.requests)
    left = [r.id for r in recording.requests if r.outcome is Outcome.OPEN]
    assert sorted(left) == sorted([*queue.waiting, *queue.running])
    assert recording.backlogged[TenantId("2")][-1][1] == recording.seconds


def test_a_watcher_is_called_before_every_admission() -> None:
    queue, seen = Queue(), []

    def watch(now: float) -> None:
        seen.append((now, len(queue.waiting)))

    recording = replay(arrivals("a", [0.0, 0.0, 3.0], [(5, 5)] * 3), queue, watch=watch)
    assert seen == [(0.0, 2), (0.0, 1), (3.0, 1)]
    assert [r.admitted for r in recording.requests] == [now for now, _ in seen]


def test_two_requests_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="one id"):
        replay([*arrivals("a", [0.0]), *arrivals("a", [1.0])], Queue())


def test_who_comes_during_a_step_is_there_before_its_tokens_are_charged() -> None:
    class Attentive(Queue):
        def produced(self, request: RequestId, tokens: int = 1) -> None:
            super().produced(request, tokens)
            heard.append(len(self.waiting))

    heard: list[int] = []
    replay(arrivals("a", [0.0, 0.1], [(1000, 1), (1, 1)]), Attentive())  # the first takes 0.217 s
    assert heard == [1, 0]
