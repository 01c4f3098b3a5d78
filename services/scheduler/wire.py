"""The scheduler's own messages, to and from its types."""

from lorikeet.scheduler.v1 import fleet_service_pb2 as fleet_pb
from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from services.core.errors import InvalidRequest
from services.core.types import Digest, Fingerprint, RequestId, TenantId, WorkerId
from services.policies.migration.loads import Reason
from services.policies.placement.cost import Cost
from services.runtime.wire_reports import place_to_wire, report_to_wire
from services.scheduler.demand import Demand, TenantDebt
from services.scheduler.migrations import Migration, MigrationState
from services.scheduler.wishes import Pinned, WorkerState, WorkerWish
from services.scheduler.worker import Identity, Role, Worker

_ROLES = {
    Role.ALL: pb.WORKER_ROLE_UNSPECIFIED,
    Role.PREFILL: pb.WORKER_ROLE_PREFILL,
    Role.DECODE: pb.WORKER_ROLE_DECODE,
}
_ROLES_OF_WIRE = {wire: role for role, wire in _ROLES.items()}
_WISHES = {
    None: pb.WORKER_WISH_UNSPECIFIED,
    WorkerWish.SERVE: pb.WORKER_WISH_SERVE,
    WorkerWish.CORDON: pb.WORKER_WISH_CORDON,
    WorkerWish.DRAIN: pb.WORKER_WISH_DRAIN,
}
_WISHES_OF_WIRE = {wire: wish for wish, wire in _WISHES.items()}
_STATES = {
    WorkerState.SERVING: pb.WORKER_STATE_SERVING,
    WorkerState.CORDONED: pb.WORKER_STATE_CORDONED,
    WorkerState.DRAINING: pb.WORKER_STATE_DRAINING,
    WorkerState.AWAY: pb.WORKER_STATE_AWAY,
    WorkerState.STUCK: pb.WORKER_STATE_STUCK,
}
_REASONS = {
    Reason.BALANCE: fleet_pb.MIGRATION_REASON_BALANCE,
    Reason.MEMORY: fleet_pb.MIGRATION_REASON_MEMORY,
    Reason.DRAIN: fleet_pb.MIGRATION_REASON_DRAIN,
    Reason.OPERATOR: fleet_pb.MIGRATION_REASON_OPERATOR,
}
_MOVED = {
    MigrationState.ORDERED: fleet_pb.MIGRATION_STATE_ORDERED,
    MigrationState.LEFT: fleet_pb.MIGRATION_STATE_LEFT,
    MigrationState.VOID: fleet_pb.MIGRATION_STATE_VOID,
}


def identity_from_wire(stated: pb.WorkerIdentity) -> Identity:
    if not (stated.id and stated.address and stated.base_model):
        raise InvalidRequest.of("identity", "the first message names the worker")
    return Identity(
        id=WorkerId(stated.id),
        address=stated.address,
        base_model=stated.base_model,
        base_fingerprint=Fingerprint(stated.base_fingerprint),
        device=stated.device,
        devices=stated.devices or 1,
        role=_ROLES_OF_WIRE.get(stated.role, Role.ALL),
    )


def identity_to_wire(identity: Identity) -> pb.WorkerIdentity:
    return pb.WorkerIdentity(
        id=identity.id,
        address=identity.address,
        base_model=identity.base_model,
        base_fingerprint=identity.base_fingerprint,
        device=identity.device,
        devices=identity.devices,
        role=_ROLES[identity.role],
    )


def worker_to_wire(worker: Worker) -> pb.Worker:
    return pb.Worker(
        identity=identity_to_wire(worker.identity),
        report=report_to_wire(worker.report),
        report_age_milliseconds=int(worker.age_seconds * 1000),
        wish=_WISHES[worker.wish],
        state=_STATES[worker.state],
    )


def wish_from_wire(wish: pb.WorkerWish.ValueType) -> WorkerWish:
    """Raises InvalidRequest if nothing is wished for that is known."""
    known = _WISHES_OF_WIRE.get(wish)
    if known is None:
        raise InvalidRequest.of("wish", "must be serve, cordon or drain")
    return known


def demand_from_wire(request: pb.ReportDemandRequest) -> Demand:
    if not (request.gateway and request.base_fingerprint):
        raise InvalidRequest.of("gateway", "name the base model and the gateway")
    return Demand(
        base_model=request.base_model,
        waiting=request.waiting,
        longest_wait_seconds=request.longest_wait_seconds,
        in_time=request.in_time,
        arrived={Digest(digest): count for digest, count in request.arrived.items()},
        debts=tuple(
            TenantDebt(TenantId(debt.tenant), debt.owed, tuple(map(RequestId, debt.requests)))
            for debt in request.debts
        ),
    )


def pin_to_wire(pinned: Pinned) -> fleet_pb.Pin:
    return fleet_pb.Pin(
        adapter_digest=pinned.pin.adapter,
        base_model=pinned.pin.base_model,
        workers=pinned.pin.workers,
        worker_ids=pinned.there,
        full_worker_ids=pinned.full,
    )


def cost_to_wire(cost: Cost) -> fleet_pb.PlacementCost:
    return fleet_pb.PlacementCost(
        worker_id=cost.worker,
        home=cost.home,
        place=place_to_wire(cost.place),
        total_ms=cost.total_ms,
        load_ms=cost.load_ms,
        queue_ms=cost.queue_ms,
        slowdown_ms=cost.slowdown_ms,
        excluded=cost.excluded,
    )


def migration_to_wire(migration: Migration) -> fleet_pb.Migration:
    return fleet_pb.Migration(
        id=migration.id,
        request_id=migration.request,
        adapter_digest=migration.adapter or "",
        source_worker_id=migration.source,
        target_worker_id=migration.target,
        reason=_REASONS[migration.reason],
        state=_MOVED[migration.state],
        ordered_at_ms=migration.ordered_us // 1000,
        tokens=migration.tokens,
        gain_seconds=migration.gain_seconds,
    )
