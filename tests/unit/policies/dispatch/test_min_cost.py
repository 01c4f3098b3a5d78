"""dLoRA's dispatch when requests come, and where adapters are before."""

import pytest

from services.core.types import Digest
from services.policies.dispatch.hosts import spread
from services.policies.dispatch.min_cost import (
    Dispatch,
    Dispatched,
    Host,
    MinCost,
    ProactiveMinCost,
    RandomHost,
    cost,
)

A, B, C = map(Digest, "abc")


def host(resident: str, slots: int = 2, **requests: int) -> Host:
    return Host({Digest(k): n for k, n in requests.items()}, set(map(Digest, resident)), slots)


def test_a_full_batch_of_one_adapter_costs_less() -> None:
    assert cost({A: 16}) == pytest.approx(0.6)
    assert cost({A: 8, B: 8}) == 1
    assert cost({A: 20, B: 13}) == pytest.approx(1.6)


def test_the_cheapest_of_those_that_have_it() -> None:
    hosts = [host("a", a=40), host("a", a=3), host("b")]
    assert MinCost().dispatch(A, hosts) == Dispatched(1)


def test_any_of_those_that_have_it() -> None:
    hosts = [host("b"), host("a", a=40), host("a")]
    assert RandomHost(lambda count: 0).dispatch(A, hosts) == Dispatched(1)
    assert RandomHost(lambda count: count - 1).dispatch(A, hosts) == Dispatched(2)


def test_an_idle_adapter_with_another_host_gives_its_place() -> None:
    hosts = [host("a", a=40), host("bc", b=1), host("c")]
    assert ProactiveMinCost().dispatch(A, hosts) == Dispatched(2)
    full = [host("a", 1, a=40), host("bc", b=1), host("c", 1)]
    assert ProactiveMinCost().dispatch(A, full) == Dispatched(2, instead_of=C)


@pytest.mark.parametrize("other", [host("b", 1), host("c", 1, c=1)])
def test_an_adapter_without_another_host_or_in_use_stays(other: Host) -> None:
    hosts = [host("a", 1, a=40), other, host("c", 1, c=40)]
    assert ProactiveMinCost().dispatch(A, hosts) == Dispatched(0)


def test_a_load_has_its_price() -> None:
    hosts = [host("a", a=16), host("c")]
    assert ProactiveMinCost(load_cost=0.1).dispatch(A, hosts) == Dispatched(1)
    assert ProactiveMinCost(load_cost=0.7).dispatch(A, hosts) == Dispatched(0)


@pytest.mark.parametrize("dispatch", [MinCost(), ProactiveMinCost(), RandomHost(lambda _: 0)])
def test_an_adapter_that_is_nowhere_is_brought(dispatch: Dispatch) -> None:
    assert dispatch.dispatch(A, [host("bc", b=1, c=1), host("b")]) == Dispatched(1)
    idle = [host("b", 1, b=1), host("c", 1)]
    assert dispatch.dispatch(A, idle) == Dispatched(1, instead_of=C)
    busy = [host("b", 1, b=2), host("c", 1, c=1)]
    assert dispatch.dispatch(A, busy) == Dispatched(1)


def test_every_adapter_has_a_host_and_there_are_spares() -> None:
    hosted = spread([Digest(str(n)) for n in range(32)], 8, slots=5)
    assert set.union(*hosted) == {Digest(str(n)) for n in range(32)}
    assert sum(map(len, hosted)) == 32 + 8 - 1
    assert max(map(len, hosted)) <= 5


def test_there_must_be_slots_for_all() -> None:
    with pytest.raises(ValueError, match="slots"):
        spread([A, B, C], 2, slots=1)
