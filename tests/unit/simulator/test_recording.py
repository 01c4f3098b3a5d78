"""A recorder that is told a short story tells it back."""

from services.core.types import RequestId, TenantId
from services.policies.fairness.admission import Request
from services.simulator.recording import Outcome, Recorder

A = TenantId("a")
FIRST, SECOND, THIRD = (RequestId(name) for name in ("first", "second", "third"))


def asked(name: RequestId, prompt: int = 10) -> Request:
    return Request(name, A, prompt, 5)


def test_service_is_charged_when_it_is_given() -> None:
    recorder = Recorder()
    recorder.enqueue(asked(FIRST), 2, 0.5)
    recorder.admit(FIRST, 1.0)
    recorder.produce([FIRST], 2.0)
    recorder.produce([FIRST], 3.0)
    recorder.finish(FIRST, 3.0)
    recording = recorder.recording(4.0)
    assert recording.service(A, 0, 4) == 10 + 2 + 2
    assert recording.service(A, 1.0, 3.0) == 10 + 2  # the end is not part of it
    assert recording.service(A, 1.5, 4, w_p=7, w_q=1) == 2
    assert recording.service(TenantId("nobody"), 0, 4) == 0
    [record] = recording.requests
    assert (record.arrived, record.admitted) == (0.5, 1.0)
    assert (record.first_token, record.ended) == (2.0, 3.0)
    assert (record.output_tokens, record.outcome) == (2, Outcome.FINISHED)


def test_a_tenant_is_backlogged_while_anything_of_it_waits() -> None:
    recorder = Recorder()
    recorder.enqueue(asked(FIRST), 1, 1.0)
    recorder.enqueue(asked(SECOND), 1, 2.0)
    recorder.admit(FIRST, 3.0)
    recorder.cancel(SECOND, 4.0)  # it waited
    recorder.cancel(FIRST, 5.0)  # it ran
    recorder.enqueue(asked(THIRD), 1, 6.0)
    assert recorder.num_waiting == 1
    assert recorder.recording(8.0).backlogged == {A: [(1.0, 4.0), (6.0, 8.0)]}


def test_who_is_admitted_as_it_comes_was_never_backlogged() -> None:
    recorder = Recorder()
    recorder.enqueue(asked(FIRST), 1, 1.0)
    recorder.admit(FIRST, 1.0)
    assert not recorder.recording(2.0).backlogged


def test_who_is_rejected_never_waited() -> None:
    recorder = Recorder()
    recorder.reject(asked(FIRST), 1, 1.0)
    recording = recorder.recording(2.0)
    assert recorder.num_waiting == 0
    assert not recording.backlogged
    assert [r.id for r in recording.of(A, Outcome.REJECTED)] == [FIRST]
