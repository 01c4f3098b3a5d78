"""Moves that an operator asks for, over real gRPC."""

from collections.abc import Sequence
from typing import Any

from lorikeet.scheduler.v1 import fleet_service_pb2 as pb
from lorikeet.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from services.core.types import RequestId
from services.policies.migration.loads import Debts, PlannedMove, Reason, WorkerLoad
from services.runtime.db import Sessions
from services.scheduler.control import Rules
from tests.led_fleets import old, world
from tests.schedulers import OPERATOR, FakeWorker, until


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


async def test_a_dry_run_says_what_would_be_moved_and_moves_nothing(
    fleet_sessions: Sessions,
) -> None:
    source, target, planner = old(2), FakeWorker("a"), OneToTheEmptiest()
    more: dict[str, Any] = {"rules": Rules(balance_seconds=0), "planner": planner}
    async with world(fleet_sessions, source, target, **more) as there:
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
    fleet_sessions: Sessions,
) -> None:
    source, target, planner = old(1), FakeWorker("a"), OneToTheEmptiest()
    more: dict[str, Any] = {"rules": Rules(balance_seconds=0), "planner": planner}
    async with world(fleet_sessions, source, target, **more) as there:
        source.ending.add("r0")
        await there.fleet.Rebalance(pb.RebalanceRequest(), metadata=OPERATOR)
        await until(lambda: source.moved == [("r0", "a")] and not planner.moved)
        (move,) = (await there.migrations()).migrations
        assert move.state == pb.MIGRATION_STATE_VOID
