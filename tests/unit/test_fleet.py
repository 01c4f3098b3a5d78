import pytest

from services.core.clock import ManualClock
from services.core.errors import AlreadyExists, Unavailable
from services.core.reports import WorkerReport
from services.core.types import Digest, Fingerprint, WorkerId
from services.scheduler.fleet import Fleet, wish_for
from services.scheduler.worker import Identity

ADAPTER = Digest("a" * 64)


def identity(worker: str, address: str = "") -> Identity:
    return Identity(WorkerId(worker), address or worker, "base", Fingerprint("f"), "cpu")


def fleet() -> tuple[Fleet, ManualClock]:
    clock = ManualClock()
    return Fleet(clock, lease_seconds=3.0), clock


def test_a_silent_worker_gets_nothing_after_its_lease() -> None:
    workers, clock = fleet()
    seat = workers.join(identity("w1"), WorkerReport())
    clock.advance(2.9)
    assert workers.place(wish_for("base", "f", "", ())).id == "w1"
    clock.advance(0.2)
    with pytest.raises(Unavailable):
        workers.place(wish_for("base", "f", "", ()))
    with pytest.raises(Unavailable):
        seat.report(WorkerReport())


def test_the_end_of_an_old_stream_does_not_end_the_new_membership() -> None:
    workers, _ = fleet()
    old = workers.join(identity("w1"), WorkerReport())
    workers.join(identity("w1"), WorkerReport())
    old.leave()
    assert [worker.identity.id for worker in workers.workers()] == ["w1"]


def test_an_id_that_is_alive_elsewhere_is_refused() -> None:
    workers, _ = fleet()
    workers.join(identity("w1", "a:1"), WorkerReport())
    with pytest.raises(AlreadyExists):
        workers.join(identity("w1", "b:1"), WorkerReport())


def test_a_resident_adapter_attracts_unless_its_worker_has_a_queue() -> None:
    workers, _ = fleet()
    workers.join(identity("w1"), WorkerReport())
    seat = workers.join(identity("w2"), WorkerReport(resident=(ADAPTER,), running=5))
    assert workers.place(wish_for("base", "f", ADAPTER, ())).id == "w2"
    seat.report(WorkerReport(resident=(ADAPTER,), running=5, waiting=1))
    assert workers.place(wish_for("base", "f", ADAPTER, ())).id == "w1"


def test_placements_between_reports_spread() -> None:
    workers, _ = fleet()
    workers.join(identity("w1"), WorkerReport())
    workers.join(identity("w2"), WorkerReport())
    placed = [workers.place(wish_for("base", "f", "", ())).id for _ in range(4)]
    assert sorted(placed) == ["w1", "w1", "w2", "w2"]


@pytest.mark.parametrize(
    "wish",
    [
        wish_for("other", "", "", ()),
        wish_for("base", "other", "", ()),
        wish_for("base", "f", "", ("w1",)),
    ],
)
def test_a_worker_that_cannot_run_it_is_not_chosen(wish: object) -> None:
    workers, _ = fleet()
    workers.join(identity("w1"), WorkerReport())
    with pytest.raises(Unavailable):
        workers.place(wish)  # type: ignore[arg-type]


def test_a_draining_worker_is_not_chosen() -> None:
    workers, _ = fleet()
    workers.join(identity("w1"), WorkerReport(draining=True))
    with pytest.raises(Unavailable):
        workers.place(wish_for("base", "", "", ()))
