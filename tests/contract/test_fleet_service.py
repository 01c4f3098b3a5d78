"""Operators and workers, and a scheduler between them, over real gRPC."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from lorikeet.scheduler.v1 import fleet_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from services.core.types import Digest, Fingerprint, WorkerId
from services.gateway.workers import Workers
from services.runtime.beside import beside
from services.runtime.client import open_channels
from services.runtime.db import Sessions
from services.scheduler.control import Rules
from services.scheduler.repository import SqlWishes
from services.scheduler.wishes import WorkerWish
from tests.led_fleets import ADAPTER, CORDON, DRAIN, SERVE, old, world
from tests.schedulers import OPERATOR, TOKEN, FakeWorker, until


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_a_worker_that_is_to_drain_is_emptied_and_the_log_says_how(
    fleet_sessions: Sessions,
) -> None:
    source, targets = old(5), [FakeWorker("a", "host-a:1"), FakeWorker("b", "host-b:1")]
    rules = Rules(drain_seconds=0.05, most_underway=2)
    async with world(fleet_sessions, source, *targets, rules=rules) as there:
        shown = await there.set("old", DRAIN)
        assert shown.state == scheduler_pb.WORKER_STATE_DRAINING
        await until(lambda: not source.sequences)
        assert source.draining
        assert {request for request, _ in source.moved} == {f"r{n}" for n in range(5)}
        async with asyncio.timeout(5):
            while True:
                log = (await there.migrations(worker_id="old")).migrations
                if all(move.state == pb.MIGRATION_STATE_LEFT for move in log):
                    break
                await asyncio.sleep(0.02)
        assert len(log) == 5
        assert {move.tokens for move in log} == {10, 11, 12, 13, 14}
        assert {move.reason for move in log} == {pb.MIGRATION_REASON_DRAIN}
        page = await there.migrations(page_size=2)
        rest = await there.migrations(page_size=3, page_token=page.next_page_token)
        assert [*page.migrations, *rest.migrations] == list(log)
        assert rest.next_page_token == ""


async def test_what_is_wanted_is_said_before_the_next_report(fleet_sessions: Sessions) -> None:
    worker, other = old(3), FakeWorker("a")
    async with world(fleet_sessions, lease_seconds=3600) as there, AsyncExitStack() as stack:
        attached = (each.attached(there.channel, 3600) for each in (worker, other))
        await stack.enter_async_context(beside(*attached))
        await until(lambda: bool(worker.term and other.term))
        preload = pb.PreloadAdapterRequest(adapter_digest=ADAPTER, worker_ids=["old"])
        await there.fleet.PreloadAdapter(preload, metadata=OPERATOR)
        await until(lambda: worker.preloaded == [ADAPTER])
        await there.set("old", DRAIN)
        await until(lambda: worker.draining)
        assert worker.preloaded == [ADAPTER]  # each order once
        assert other.preloaded == []


async def test_who_has_drained_comes_back_cordoned(fleet_sessions: Sessions) -> None:
    """Also at a scheduler that knows nothing but what is in SQL."""
    worker = FakeWorker("old")
    async with world(fleet_sessions, FakeWorker("a")) as there:
        async with beside(worker.attached(there.channel)):
            while (await there.states()).keys() != {"a", "old"}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await there.set("old", DRAIN)
            async with asyncio.timeout(5):
                while "old" not in await there.saying_that_they_drain():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        async with asyncio.timeout(5):
            while (await SqlWishes(fleet_sessions, 1).read()).workers != {"old": WorkerWish.CORDON}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        back = FakeWorker("old")
        async with beside(back.attached(there.channel)):
            await until(lambda: bool(back.term))
            assert not back.draining
            assert (await there.states())["old"] == "cordoned"
            await there.set("old", SERVE)
            assert (await there.states())["old"] == "serving"


async def test_who_is_cordoned_is_not_named_until_it_serves_again(fleet_sessions: Sessions) -> None:
    async with world(fleet_sessions, FakeWorker("a"), FakeWorker("b")) as there:
        told = there.named()
        async with asyncio.timeout(10):
            assert await anext(told) == ["a", "b"]
            await there.set("a", CORDON)
            assert await anext(told) == ["b"]
            assert await there.states() == {"a": "cordoned", "b": "serving"}
            await there.set("a", SERVE)
            assert await anext(told) == ["a", "b"]
        await told.aclose()  # type: ignore[attr-defined]


async def test_what_was_wished_holds_for_a_scheduler_that_starts_again(
    fleet_sessions: Sessions,
) -> None:
    workers = [FakeWorker("a"), FakeWorker("b")]
    async with world(fleet_sessions, *workers) as there:
        await there.set("a", CORDON)
        assert await there.pin(2) == ["b"]  # the other one serves nobody
        await there.set("b", CORDON)
    back = FakeWorker("a")
    async with world(fleet_sessions, back) as there:
        assert await there.states() == {"a": "cordoned", "b": "away"}
        await there.set("a", SERVE)
        await until(lambda: back.pinned == [ADAPTER])


async def test_what_is_pinned_is_said_to_its_workers_and_listed(fleet_sessions: Sessions) -> None:
    workers = [FakeWorker(name) for name in "abc"]
    async with world(fleet_sessions, *workers) as there:
        chosen = await there.pin(2)
        assert len(chosen) == 2
        await until(lambda: {w.id for w in workers if w.pinned == [ADAPTER]} == set(chosen))

        async def pins() -> Any:
            return (await there.fleet.ListPins(pb.ListPinsRequest(), metadata=OPERATOR)).pins

        async with asyncio.timeout(5):  # until their reports say that they have it
            while sorted((await pins())[0].worker_ids) != sorted(chosen):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        asked = pb.ExplainPlacementRequest(adapter_digest=ADAPTER)
        why = await there.fleet.ExplainPlacement(asked, metadata=OPERATOR)
        assert (why.pinned, why.homes) == (2, 2)
        assert {each.worker_id for each in why.workers if each.home} == set(chosen)
        assert {each.worker_id for each in why.workers[:2]} == set(chosen)
        workers["abc".index(chosen[0])].is_full = True
        async with asyncio.timeout(5):
            while list((await pins())[0].full_worker_ids) != chosen[:1]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert list((await pins())[0].worker_ids) == chosen[1:]
        assert await there.pin(0) == []
        assert list(await pins()) == []
        await until(lambda: all(w.pinned == [] for w in workers))


async def test_a_gateway_hears_how_many_homes_an_adapter_has_now(fleet_sessions: Sessions) -> None:
    async with world(fleet_sessions, *(FakeWorker(name) for name in "abc")) as there:
        channels, gateway = open_channels(there.address), Workers(TOKEN)
        base, adapter = Fingerprint("f" * 64), Digest(ADAPTER)

        def homes() -> frozenset[WorkerId]:
            return gateway.lines(base).homes(base, adapter)

        async def hears(count: int) -> frozenset[WorkerId]:
            await until(lambda: len(homes()) == count)
            return homes()

        async with beside(gateway.follow(channels)):
            (one,) = await hears(1)
            await there.pin(2)
            two = await hears(2)
            assert one in two
            await there.set(one, CORDON)  # who serves nobody is nobody's home
            await until(lambda: one not in homes())
            assert len(await hears(2)) == 2
            await there.pin(0)
            assert await hears(1) <= {"a", "b", "c"} - {one}
        await gateway.close()
        await channels.close()


async def test_a_preload_is_ordered_of_whom_it_names(fleet_sessions: Sessions) -> None:
    workers = [FakeWorker("a"), FakeWorker("b")]
    async with world(fleet_sessions, *workers) as there:
        for named in (["b"], []):
            request = pb.PreloadAdapterRequest(adapter_digest=ADAPTER, worker_ids=named)
            response = await there.fleet.PreloadAdapter(request, metadata=OPERATOR)
            (chosen,) = response.worker_ids
            assert chosen in (named or "ab")
            worker = next(each for each in workers if each.id == chosen)
            await until(lambda worker=worker: ADAPTER in worker.preloaded)  # type: ignore[misc]


async def test_what_makes_no_sense_is_refused_in_a_sentence(fleet_sessions: Sessions) -> None:
    async with world(fleet_sessions, FakeWorker("a")) as there:
        fleet = there.fleet
        for call, code, says in (
            (there.set("nobody", DRAIN), "NOT_FOUND", "no worker 'nobody'"),
            (there.set("a", 0), "INVALID_ARGUMENT", "serve, cordon or drain"),
            (there.set("", SERVE), "INVALID_ARGUMENT", "worker_id"),
            (
                fleet.PinAdapter(pb.PinAdapterRequest(adapter_digest="x"), metadata=OPERATOR),
                "INVALID_ARGUMENT",
                "64 hexadecimal digits",
            ),
            (
                fleet.PreloadAdapter(
                    pb.PreloadAdapterRequest(adapter_digest=ADAPTER, worker_ids=["x"]),
                    metadata=OPERATOR,
                ),
                "NOT_FOUND",
                "no live worker 'x'",
            ),
            (
                there.migrations(page_token="x"),
                "INVALID_ARGUMENT",
                "page_token",
            ),
        ):
            said = await refusal(call)
            assert said[0].name == code, said
            assert says in said[1]
    async with world(fleet_sessions) as there:
        why = there.fleet.ExplainPlacement(pb.ExplainPlacementRequest(), metadata=OPERATOR)
        assert "the fleet has 0" in (await refusal(why))[1]
