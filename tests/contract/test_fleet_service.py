"""Operators and workers, and a scheduler between them, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from lorikeet.scheduler.v1 import fleet_service_pb2 as pb
from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as rpc
from lorikeet.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as scheduler_rpc
from services.cli.suite import free_addresses
from services.core.types import Digest, Fingerprint, RequestId, WorkerId
from services.gateway.workers import Workers
from services.policies.migration.loads import Debts, PlannedMove, Reason, WorkerLoad
from services.runtime.beside import beside
from services.runtime.client import open_channel, open_channels
from services.runtime.db import Base, Sessions, close_sessions, open_sessions
from services.scheduler.control import Rules
from services.scheduler.repository import SqlWishes
from services.scheduler.wishes import WorkerWish
from tests.schedulers import OPERATOR, TOKEN, FakeWorker, leading, until

ADAPTER = "a" * 64
CORDON, DRAIN, SERVE = (
    scheduler_pb.WORKER_WISH_CORDON,
    scheduler_pb.WORKER_WISH_DRAIN,
    scheduler_pb.WORKER_WISH_SERVE,
)


class World:
    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self.fleet: Any = rpc.FleetServiceStub(channel)
        self.scheduler: Any = scheduler_rpc.SchedulerServiceStub(channel)

    async def set(self, worker: str, wish: Any) -> scheduler_pb.Worker:
        request = pb.SetWorkerRequest(worker_id=worker, wish=wish)
        response = await self.fleet.SetWorker(request, metadata=OPERATOR)
        worker_: scheduler_pb.Worker = response.worker
        return worker_

    async def states(self) -> dict[str, str]:
        request = scheduler_pb.ListWorkersRequest()
        listed = await self.scheduler.ListWorkers(request, metadata=OPERATOR)
        names = scheduler_pb.WorkerState.Name
        return {
            worker.identity.id: names(worker.state).removeprefix("WORKER_STATE_").lower()
            for worker in listed.workers
        }

    async def saying_that_they_drain(self) -> list[str]:
        request = scheduler_pb.ListWorkersRequest()
        listed = await self.scheduler.ListWorkers(request, metadata=OPERATOR)
        return [worker.identity.id for worker in listed.workers if worker.report.draining]

    async def pin(self, workers: int) -> list[str]:
        request = pb.PinAdapterRequest(adapter_digest=ADAPTER, workers=workers)
        return list((await self.fleet.PinAdapter(request, metadata=OPERATOR)).worker_ids)

    async def migrations(self, **asked: Any) -> Any:
        request = pb.ListMigrationsRequest(**asked)
        return await self.fleet.ListMigrations(request, metadata=OPERATOR)

    async def named(self) -> AsyncIterator[list[str]]:
        request = scheduler_pb.WatchWorkersRequest()
        async for response in self.scheduler.WatchWorkers(request, metadata=OPERATOR):
            yield [worker.id for worker in response.workers]


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[Sessions]:
    sessions = open_sessions(f"sqlite+aiosqlite:///{tmp_path / 'fleet.db'}")
    async with sessions.kw["bind"].begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield sessions
    await close_sessions(sessions)


@asynccontextmanager
async def world(sessions: Sessions, *workers: FakeWorker, **more: Any) -> AsyncIterator[World]:
    """With these workers attached."""
    address = free_addresses().scheduler
    channel = open_channel(address)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(channel.close)
        reign = await stack.enter_async_context(leading(sessions, address, **more))
        attaching = (worker.attached(channel) for worker in workers)
        await stack.enter_async_context(beside(*attaching))
        await until(lambda: len(reign.fleet.live()) == len(workers))
        yield World(address, channel)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def old(count: int) -> FakeWorker:
    return FakeWorker("old", sequences={f"r{number}": 10 + number for number in range(count)})


async def test_a_worker_that_is_to_drain_is_emptied_and_the_log_says_how(
    sessions: Sessions,
) -> None:
    source, targets = old(5), [FakeWorker("a", "host-a:1"), FakeWorker("b", "host-b:1")]
    rules = Rules(drain_seconds=0.05, most_underway=2)
    async with world(sessions, source, *targets, rules=rules) as there:
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


async def test_what_is_wanted_is_said_before_the_next_report(sessions: Sessions) -> None:
    worker, other = old(3), FakeWorker("a")
    async with world(sessions, lease_seconds=3600) as there, AsyncExitStack() as stack:
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


async def test_who_has_drained_comes_back_cordoned(sessions: Sessions) -> None:
    """Also at a scheduler that knows nothing but what is in SQL."""
    worker = FakeWorker("old")
    async with world(sessions, FakeWorker("a")) as there:
        async with beside(worker.attached(there.channel)):
            while (await there.states()).keys() != {"a", "old"}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await there.set("old", DRAIN)
            async with asyncio.timeout(5):
                while "old" not in await there.saying_that_they_drain():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        async with asyncio.timeout(5):
            while (await SqlWishes(sessions, 1).read()).workers != {"old": WorkerWish.CORDON}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        back = FakeWorker("old")
        async with beside(back.attached(there.channel)):
            await until(lambda: bool(back.term))
            assert not back.draining
            assert (await there.states())["old"] == "cordoned"
            await there.set("old", SERVE)
            assert (await there.states())["old"] == "serving"


async def test_who_is_cordoned_is_not_named_until_it_serves_again(sessions: Sessions) -> None:
    async with world(sessions, FakeWorker("a"), FakeWorker("b")) as there:
        told = there.named()
        async with asyncio.timeout(10):
            assert await anext(told) == ["a", "b"]
            await there.set("a", CORDON)
            assert await anext(told) == ["b"]
            assert await there.states() == {"a": "cordoned", "b": "serving"}
            await there.set("a", SERVE)
            assert await anext(told) == ["a", "b"]
        await told.aclose()  # type: ignore[attr-defined]


async def test_what_was_wished_holds_for_a_scheduler_that_starts_again(sessions: Sessions) -> None:
    workers = [FakeWorker("a"), FakeWorker("b")]
    async with world(sessions, *workers) as there:
        await there.set("a", CORDON)
        assert await there.pin(2) == ["b"]  # the other one serves nobody
        await there.set("b", CORDON)
    back = FakeWorker("a")
    async with world(sessions, back) as there:
        assert await there.states() == {"a": "cordoned", "b": "away"}
        await there.set("a", SERVE)
        await until(lambda: back.pinned == [ADAPTER])


async def test_what_is_pinned_is_said_to_its_workers_and_listed(sessions: Sessions) -> None:
    workers = [FakeWorker(name) for name in "abc"]
    async with world(sessions, *workers) as there:
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


async def test_a_gateway_hears_how_many_homes_an_adapter_has_now(sessions: Sessions) -> None:
    async with world(sessions, *(FakeWorker(name) for name in "abc")) as there:
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


async def test_a_preload_is_ordered_of_whom_it_names(sessions: Sessions) -> None:
    workers = [FakeWorker("a"), FakeWorker("b")]
    async with world(sessions, *workers) as there:
        for named in (["b"], []):
            request = pb.PreloadAdapterRequest(adapter_digest=ADAPTER, worker_ids=named)
            response = await there.fleet.PreloadAdapter(request, metadata=OPERATOR)
            (chosen,) = response.worker_ids
            assert chosen in (named or "ab")
            worker = next(each for each in workers if each.id == chosen)
            await until(lambda worker=worker: ADAPTER in worker.preloaded)  # type: ignore[misc]


class OneToTheEmptiest:
    """The newest sequence of the fullest worker; it remembers who it has yet to hear of."""

    def __init__(self) -> None:
        self.moved: set[RequestId] = set()
        self.debts = Debts()

    def plan(self, loads: Sequence[WorkerLoad], now: float, debts: Debts) -> list[PlannedMove]:
        self.debts = debts
        source = max(loads, key=lambda load: len(load.sequences))
        target = min(loads, key=lambda load: len(load.sequences))
        request = source.sequences[-1].request
        self.moved.add(request)
        return [PlannedMove(request, None, source.id, target.id, Reason.BALANCE, 2.5)]

    def forget(self, request: RequestId) -> None:
        self.moved.remove(request)


async def test_a_dry_run_says_what_would_be_moved_and_moves_nothing(sessions: Sessions) -> None:
    source, target, planner = old(2), FakeWorker("a"), OneToTheEmptiest()
    more: dict[str, Any] = {"rules": Rules(balance_seconds=0), "planner": planner}
    async with world(sessions, source, target, **more) as there:
        owed = scheduler_pb.TenantDebt(tenant="t", owed=5.0, requests=["r1"])
        told = scheduler_pb.ReportDemandRequest(gateway="g", base_fingerprint="f", debts=[owed])
        await there.scheduler.ReportDemand(told, metadata=OPERATOR)
        dry, wet = pb.RebalanceRequest(dry_run=True), pb.RebalanceRequest()
        (would,) = (await there.fleet.Rebalance(dry, metadata=OPERATOR)).migrations
        assert (would.request_id, would.target_worker_id, would.ordered_at_ms) == ("r1", "a", 0)
        assert list((await there.migrations()).migrations) == []
        assert planner.moved == set()
        assert planner.debts == Debts({RequestId("r1"): 5.0})
        assert source.moved == []
        (now,) = (await there.fleet.Rebalance(wet, metadata=OPERATOR)).migrations
        assert (now.request_id, now.gain_seconds) == ("r1", 2.5)
        assert now.reason == pb.MIGRATION_REASON_OPERATOR
        await until(lambda: source.moved == [("r1", "a")])
        assert planner.moved == {"r1"}


async def test_a_move_that_did_not_come_about_is_void_and_may_be_planned_again(
    sessions: Sessions,
) -> None:
    source, target, planner = old(1), FakeWorker("a"), OneToTheEmptiest()
    more: dict[str, Any] = {"rules": Rules(balance_seconds=0), "planner": planner}
    async with world(sessions, source, target, **more) as there:
        source.ending.add("r0")
        await there.fleet.Rebalance(pb.RebalanceRequest(), metadata=OPERATOR)
        await until(lambda: source.moved == [("r0", "a")] and not planner.moved)
        (move,) = (await there.migrations()).migrations
        assert move.state == pb.MIGRATION_STATE_VOID


async def test_what_makes_no_sense_is_refused_in_a_sentence(sessions: Sessions) -> None:
    async with world(sessions, FakeWorker("a")) as there:
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
    async with world(sessions) as there:
        why = there.fleet.ExplainPlacement(pb.ExplainPlacementRequest(), metadata=OPERATOR)
        assert "the fleet has 0" in (await refusal(why))[1]
