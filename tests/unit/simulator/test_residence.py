"""A request waits for its adapter's slot, its room and its load, and no longer."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.core.clock import ManualClock
from services.core.types import Digest
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.pool import Pool
from services.policies.fairness.baselines import FirstComeFirstServed
from services.policies.fairness.vtc import Rules, VirtualTokenCounters
from services.simulator.arrivals import Arrival, arrivals, merged
from services.simulator.recording import Outcome
from services.simulator.replay import replay
from services.simulator.replica import engine_request, replica
from services.simulator.residence import Residence
from services.simulator.step_time import A10G

LOAD = 0.25


def adapted(name: str, times: Sequence[float], prompt: int = 10, output: int = 10) -> list[Arrival]:
    return arrivals(name, times, [(prompt, output)] * len(times), Digest(name))


def test_who_is_cancelled_while_its_adapter_loads_keeps_no_slot() -> None:
    [gone] = adapted("a", [0.0])
    coming = [replace(gone, cancel_at=0.1), *adapted("b", [0.05])]
    gone_, next_ = replay(coming, FirstComeFirstServed(), slots=1, load_seconds=LOAD).requests
    assert (gone_.outcome, gone_.output_tokens) == (Outcome.CANCELLED, 0)
    assert next_.admitted == pytest.approx(LOAD)
    assert next_.first_token == pytest.approx(2 * LOAD + A10G.seconds(10, 0, 0))


def test_a_request_waits_for_its_load_and_the_next_of_its_adapter_does_not() -> None:
    coming = adapted("a", [5.0, 9.0])
    first, second = replay(coming, FirstComeFirstServed(), slots=2, load_seconds=LOAD).requests
    prefill = A10G.seconds(10, 0, 0)
    assert first.admitted == 5
    assert first.first_token == pytest.approx(5 + LOAD + prefill)
    assert second.first_token == pytest.approx(9 + prefill)


def test_adapters_load_beside_each_other() -> None:
    coming = merged(adapted("a", [0.0]), adapted("b", [0.1]))
    one, other = replay(coming, FirstComeFirstServed(), slots=2, load_seconds=LOAD).requests
    assert one.first_token == pytest.approx(LOAD + A10G.seconds(10, 0, 0))
    assert other.first_token is not None
    assert other.first_token < 2 * LOAD


def test_others_run_while_an_adapter_loads() -> None:
    coming = merged(arrivals("base", [0.0], [(10, 60)]), adapted("a", [0.0]))
    base, loading = replay(coming, FirstComeFirstServed(), slots=1, load_seconds=1.0).requests
    alone, _ = replay(coming, FirstComeFirstServed(), slots=1, load_seconds=30.0).requests
    assert (base.admitted, loading.admitted) == (0, 0)
    assert alone.ended is not None
    assert alone.ended < 2.5  # sixty steps of 30 ms
    assert base.first_token == alone.first_token
    assert loading.first_token == pytest.approx(1.0, abs=0.1)


def test_a_request_whose_adapter_gets_no_slot_does_not_start() -> None:
    coming = merged(
        adapted("a", [0.0], output=100), adapted("b", [0.1]), arrivals("base", [0.2], [(10, 10)])
    )
    policy = VirtualTokenCounters(Rules(band=1e9))
    used, waits, base = replay(coming, policy, slots=1, load_seconds=LOAD).requests
    assert used.ended is not None
    assert base.ended is not None
    assert base.ended < used.ended
    assert waits.admitted == used.ended
    assert waits.first_token == pytest.approx(used.ended + LOAD + A10G.seconds(10, 0, 0))


def test_an_adapter_takes_room_beside_the_tokens() -> None:
    coming = adapted("a", [0.0, 0.0, 0.0], prompt=60, output=40)

    def together(kv_tokens: int) -> int:
        recording = replay(
            coming, FirstComeFirstServed(), kv_tokens=kv_tokens, slots=2, load_seconds=LOAD
        )
        return sum(record.admitted == 0 for record in recording.requests)

    assert [together(tokens) for tokens in (101, 200, 201, 300, 301)] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("before", [[], adapted("a", [0.0])], ids=["to be loaded", "idle"])
def test_an_adapter_that_nobody_uses_is_not_free_for_its_own_request(before: list[Arrival]) -> None:
    base = arrivals("base", [9.0], [(60, 40)])
    [own] = arrivals("own", [9.0], [(60, 40)], Digest("a"))

    def starts_at_once(kv_tokens: int) -> bool:
        stream = merged(before, base, [own])
        recording = replay(stream, FirstComeFirstServed(), kv_tokens=kv_tokens, slots=1)
        return recording.requests[-1].admitted == 9

    assert [starts_at_once(tokens) for tokens in (200, 201)] == [False, True]


def test_an_adapter_that_was_loaded_for_nobody_leaves_for_tokens() -> None:
    [gone] = adapted("a", [0.0])
    coming = [replace(gone, cancel_at=0.1), *arrivals("base", [0.15], [(60, 40)])]
    recording = replay(coming, FirstComeFirstServed(), kv_tokens=100, slots=1, load_seconds=LOAD)
    assert recording.requests[1].admitted == pytest.approx(LOAD)


def test_a_request_that_never_fits_beside_its_adapter_is_rejected() -> None:
    coming = adapted("a", [0.0], prompt=60, output=40)
    for slots, outcome in ((1, Outcome.REJECTED), (None, Outcome.FINISHED)):
        recording = replay(coming, FirstComeFirstServed(), kv_tokens=100, slots=slots)
        assert recording.requests[0].outcome is outcome


def rig(slots: int) -> tuple[Residence, Engine, Pool]:
    pool = Pool(1000, page_tokens=1, keeps_prefixes=False)
    engine = replica(ManualClock(), A10G, pool, max_sequences=8)
    return Residence(engine, pool, slots=slots, load_seconds=LOAD), engine, pool


def test_nothing_is_left_pinned() -> None:
    residence, engine, pool = rig(slots=2)
    a, again = adapted("a", [0.0, 0.0], output=2)
    [b] = adapted("b", [0.0], output=2)
    for arrival in (a, again, b):
        residence.submit(engine_request(arrival, arrival.request.adapter), 0.0)
    engine.cancel(b.request.id)
    residence.cancel(b.request.id)
    assert residence.num_held == 2
    assert residence.end_loads(LOAD)
    assert pool.residency.pins == 2
    engine.step()
    residence.started()
    assert (residence.num_held, pool.residency.pins) == (0, 2)
    engine.step()
    assert pool.residency.pins == 0
    assert set(engine.resident) == {"a", "b"}


def test_who_is_awaited_or_loads_does_not_leave() -> None:
    residence, engine, pool = rig(slots=1)
    [a], [b] = adapted("a", [0.0], output=1), adapted("b", [0.0])
    residence.submit(engine_request(a, a.request.adapter), 0.0)
    assert not residence.has_slot(b.request.adapter)
    assert residence.next_end == LOAD
    assert not residence.end_loads(LOAD / 2)
    assert residence.end_loads(LOAD)
    assert not residence.has_slot(b.request.adapter)
    engine.step()
    residence.started()
    assert residence.has_slot(b.request.adapter)
    residence.submit(engine_request(b, b.request.adapter), 1.0)
    assert residence.adapters == {"b"}
    assert not engine.resident
    assert pool.pages.num_free == 999
