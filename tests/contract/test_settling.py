"""Two gateways and a scheduler, over real gRPC: their counters become one account."""

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import count

import pytest

from services.cli.suite import free_addresses
from services.core.types import Fingerprint, RequestId, TenantId, Tier
from services.gateway.settling import Settling
from services.policies.fairness.admission import Request
from services.policies.fairness.tiers import Tiers
from services.policies.fairness.vtc import VirtualTokenCounters
from services.runtime.beside import beside
from services.runtime.client import open_channels
from services.runtime.clock import SystemClock
from services.runtime.db import IN_MEMORY, close_sessions, open_sessions
from services.scheduler.office import Office
from tests.schedulers import TOKEN, reign_of, serving, until

BASE = Fingerprint("b" * 64)
LEASE_SECONDS = 0.5
NUMBERS = count()


@asynccontextmanager
async def scheduler(address: str) -> AsyncIterator[None]:
    """Its database is not looked at: nobody settles there."""
    clock, office = SystemClock(), Office(SystemClock())
    sessions = open_sessions(IN_MEMORY)
    reign = reign_of(sessions, 1, clock=clock, gateway_lease_seconds=LEASE_SECONDS)
    try:
        with office.held(reign, math.inf):
            async with serving(office, address):
                yield
    finally:
        await close_sessions(sessions)


@asynccontextmanager
async def gateway(address: str) -> AsyncIterator[VirtualTokenCounters]:
    channel = open_channels(address)
    settling = Settling(channel, TOKEN, seconds=0.05)
    policy = VirtualTokenCounters()
    settling.shared(BASE, "", policy)
    try:
        async with beside(settling.run()):
            yield policy
    finally:
        await channel.close()


@pytest.fixture
async def address() -> str:
    return free_addresses().scheduler


def serve(policy: VirtualTokenCounters, tenant: str, *, tokens: int, name: str = "r") -> None:
    """One of the tenant's runs, with so many tokens of input; another one waits."""
    for role in ("runs", "waits"):
        policy.enqueue(Request(RequestId(f"{tenant}{name}{role}"), TenantId(tenant), tokens, 1), 0)
    policy.admit(RequestId(f"{tenant}{name}runs"), 0)


def raised_to(policy: VirtualTokenCounters, counter: float, *, or_to: float) -> bool:
    """Whether who comes new is raised so far: to who waits least-served anywhere, once that is
    known here. It does not stay."""
    new = f"new{next(NUMBERS)}"
    policy.enqueue(Request(RequestId(new), TenantId(new), 1, 1), 0)
    found = policy.counters[new]
    policy.end(RequestId(new))
    assert found in (counter, or_to)
    return found == counter


async def test_what_one_charges_counts_at_the_other(address: str) -> None:
    async with scheduler(address), gateway(address) as one, gateway(address) as other:
        serve(one, "acme", tokens=1000)
        serve(other, "acme", tokens=10)
        await until(lambda: one.counters == other.counters == {"acme": 1010.0})


async def test_who_comes_here_is_raised_to_those_who_wait_there(address: str) -> None:
    async with scheduler(address), gateway(address) as one, gateway(address) as other:
        serve(one, "acme", tokens=1000)
        serve(other, "zebra", tokens=10)
        await until(lambda: one.counters["acme"] == 1000)
        await until(lambda: raised_to(one, 10, or_to=1000))


async def test_a_gateway_that_is_gone_holds_nobody_down(address: str) -> None:
    async with scheduler(address), gateway(address) as one:
        async with gateway(address) as gone:
            serve(gone, "zebra", tokens=10)
            serve(one, "acme", tokens=1000)
            await until(lambda: raised_to(one, 10, or_to=1000))
        await until(lambda: raised_to(one, 1000, or_to=10))


async def test_gateways_go_on_without_a_scheduler_and_meet_again(address: str) -> None:
    async with gateway(address) as one, gateway(address) as other:
        async with scheduler(address):
            serve(one, "acme", tokens=1000)
            serve(other, "acme", tokens=10)
            await until(lambda: one.counters == other.counters == {"acme": 1010.0})
        serve(one, "acme", tokens=5, name="s")
        assert one.counters["acme"] == 1015
        async with scheduler(address):
            await until(lambda: other.counters["acme"] >= 1015)


async def test_tiers_are_an_account_of_their_own_and_each_has_one(address: str) -> None:
    channel = open_channels(address)
    async with scheduler(address), AsyncExitStack() as stack:
        stack.push_async_callback(channel.close)
        gateways: list[tuple[Tiers, dict[Tier, VirtualTokenCounters]]] = []
        for _ in range(2):
            settling = Settling(channel, TOKEN, seconds=0.05)
            inner = {tier: VirtualTokenCounters() for tier in Tier}
            tiers = Tiers(inner.__getitem__)
            for tier, policy in inner.items():
                settling.shared(BASE, tier.value, policy)
            gateways.append((settling.shared(BASE, "tiers", tiers), inner))
            await stack.enter_async_context(beside(settling.run()))
        for tiers, _ in gateways:
            for tier, tokens in ((Tier.PRIORITY, 1600), (Tier.FLEX, 10)):
                for name in ("runs", "waits"):
                    one = Request(RequestId(f"{tier}{name}"), TenantId("acme"), tokens, 1)
                    tiers.enqueue(replace(one, tier=tier), 0)
                tiers.admit(RequestId(f"{tier}runs"), 0)
        for tiers, inner in gateways:  # flex was raised to priority's hundred when it came
            await until(lambda tiers=tiers: tiers.counters == {"priority": 200, "flex": 120})  # type: ignore[misc]
            assert inner[Tier.PRIORITY].counters == {"acme": 3200}
            assert inner[Tier.FLEX].counters == {"acme": 20}
