"""What bringing an adapter takes is learnt from those that came."""

import pytest

from services.core.reports import LoadTimes, TransferTimes
from services.policies.placement.cost import load_ms
from services.policies.placement.transfers import Transfers
from services.runtime.wire_loading import load_times_from_wire, load_times_to_wire
from tests.worker_views import ADAPTER, a_view, a_wish

MIB = 1 << 20
TIMES = LoadTimes(TransferTimes(20.0, 8 / MIB, 10 * MIB), TransferTimes(1.0, 1 / MIB, 10 * MIB))


def learnt(*came: tuple[int, float]) -> TransferTimes | None:
    transfers = Transfers(base_ms=20.0)
    for size, milliseconds in came:
        transfers.took(size, milliseconds)
    return transfers.times()


def test_nothing_is_known_until_one_came() -> None:
    assert learnt() is None


def test_sizes_tell_what_any_takes_and_what_a_byte_does() -> None:
    times = learnt(*((n * MIB, 50.0 + 4.0 * n) for n in (1, 30, 8, 15, 60)))
    assert times is not None
    assert times.base == pytest.approx(50.0)
    assert times.byte * MIB == pytest.approx(4.0)


def test_those_of_one_size_take_what_is_believed_and_the_rest_is_bytes() -> None:
    times = learnt(*[(10 * MIB, 100.0)] * 3)
    assert times is not None
    assert (times.base, times.of(), times.of(20 * MIB)) == (20.0, 100.0, 180.0)
    quick = learnt((10 * MIB, 5.0))
    assert quick is not None
    assert (quick.base, quick.byte) == (5.0, 0.0)


def test_what_came_last_counts_most() -> None:
    times = learnt(*[(MIB, 1000.0)] * 20, *[(MIB, 100.0)] * 60)
    assert times is not None
    assert times.of() == pytest.approx(100.0, rel=0.05)


def test_larger_ones_that_are_quicker_make_no_byte_take_less_than_nothing() -> None:
    times = learnt((MIB, 500.0), (50 * MIB, 10.0))
    assert times is not None
    assert times.byte >= 0
    assert times.of(100 * MIB) >= 0


def test_a_load_takes_what_its_worker_has_measured_for_its_size() -> None:
    view, on_host = a_view(load_times=TIMES), a_view(load_times=TIMES, host=frozenset({ADAPTER}))
    assert load_ms(view, a_wish(fetch_ms=200.0, adapter_bytes=2 * MIB)) == pytest.approx(36.0)
    assert load_ms(on_host, a_wish(copy_ms=10.0, adapter_bytes=2 * MIB)) == pytest.approx(3.0)
    assert load_ms(view, a_wish(fetch_ms=200.0)) == pytest.approx(100.0)  # of a typical one


@pytest.mark.parametrize("times", [TIMES, LoadTimes(), LoadTimes(copy=TIMES.copy)])
def test_it_is_the_same_on_the_other_side_of_the_wire(times: LoadTimes) -> None:
    assert load_times_from_wire(load_times_to_wire(times)) == times
