"""A worker's report on the wire."""

from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from services.core.reports import (
    AdapterChanges,
    AdapterLoad,
    AdapterPlace,
    Moved,
    MoveOrder,
    MoveOutcome,
    Orders,
    SequenceLoad,
    SequenceSum,
    SequenceSums,
    StepTimes,
    WorkerReport,
)
from services.core.types import Destination, Digest, RequestId, WorkerId
from services.runtime.wire_loading import load_times_from_wire, load_times_to_wire

_PLACES = {
    AdapterPlace.DEVICE: pb.ADAPTER_PLACE_DEVICE,
    AdapterPlace.HOST: pb.ADAPTER_PLACE_HOST,
    AdapterPlace.LOADING: pb.ADAPTER_PLACE_LOADING,
}
_OUTCOMES = {
    MoveOutcome.LEFT: pb.MOVE_OUTCOME_KIND_LEFT,
    MoveOutcome.GONE: pb.MOVE_OUTCOME_KIND_GONE,
    MoveOutcome.FIXED: pb.MOVE_OUTCOME_KIND_FIXED,
}
_OUTCOMES_OF_WIRE = {wire: outcome for outcome, wire in _OUTCOMES.items()}
_PLACES_OF_WIRE = {wire: place for place, wire in _PLACES.items()}


def report_to_wire(report: WorkerReport) -> pb.WorkerReport:
    message = pb.WorkerReport(
        running_sequences=report.running,
        waiting_sequences=report.waiting,
        total_pages=report.total_pages,
        free_pages=report.free_pages,
        resident_adapters=report.resident if report.changes is None else (),
        steps=report.steps,
        draining=report.draining,
        most_sequences=report.most_sequences,
        page_tokens=report.page_tokens,
        page_bytes=report.page_bytes,
        pins_without_room=sorted(report.without_room),
        load_times=load_times_to_wire(report.load_times),
    )
    if report.adapters is not None:
        message.adapters.SetInParent()
        message.adapters.adapters.extend(_adapter(load) for load in report.adapters)
    if report.step_times is not None:
        times = report.step_times
        message.step_times.base_ms = times.base
        message.step_times.sequence_ms = times.sequence
        message.step_times.token_ms = times.token
    if report.sequences is not None:
        message.sequences.SetInParent()
        message.sequences.sequences.extend(_sequence(load) for load in report.sequences)
    message.moved.extend(_moved(moved) for moved in report.moved)
    if report.changes is not None:
        message.adapter_changes.SetInParent()
        message.adapter_changes.adapters.extend(map(_adapter, report.changes.came))
        message.adapter_changes.gone.extend(report.changes.gone)
    if report.sums is not None:
        running, waiting = _sum(report.sums.running), _sum(report.sums.waiting)
        message.sums.CopyFrom(pb.SequenceSums(running=running, waiting=waiting))
    return message


def report_from_wire(message: pb.WorkerReport) -> WorkerReport:
    return WorkerReport(
        running=message.running_sequences,
        waiting=message.waiting_sequences,
        total_pages=message.total_pages,
        free_pages=message.free_pages,
        resident=tuple(Digest(digest) for digest in message.resident_adapters),
        steps=message.steps,
        draining=message.draining,
        adapters=_adapters_from_wire(message),
        step_times=_times_from_wire(message),
        most_sequences=message.most_sequences,
        page_tokens=message.page_tokens,
        page_bytes=message.page_bytes,
        sequences=_sequences_from_wire(message),
        moved=tuple(_moved_from_wire(outcome) for outcome in message.moved),
        changes=_changes_from_wire(message),
        without_room=frozenset(Digest(digest) for digest in message.pins_without_room),
        load_times=load_times_from_wire(message.load_times),
        sums=_sums_from_wire(message),
    )


def place_to_wire(place: AdapterPlace | None) -> pb.AdapterPlace.ValueType:
    return pb.ADAPTER_PLACE_UNSPECIFIED if place is None else _PLACES[place]


def orders_to_wire(orders: Orders, *, lease_milliseconds: int) -> pb.AttachResponse:
    return pb.AttachResponse(
        lease_milliseconds=lease_milliseconds,
        term=orders.term,
        desired=pb.Desired(draining=orders.draining, pinned_adapters=sorted(orders.pinned)),
        orders=[
            *(pb.Order(move=_move(order)) for order in orders.moves),
            *(pb.Order(preload=digest) for digest in orders.preloads),
            *([pb.Order(tell_sequences=True)] if orders.tell_sequences else ()),
        ],
        takes_changes=orders.takes_changes,
    )


def orders_from_wire(message: pb.AttachResponse) -> Orders:
    by_kind: dict[str, list[pb.Order]] = {}
    for order in message.orders:
        by_kind.setdefault(order.WhichOneof("order") or "", []).append(order)
    return Orders(
        term=message.term,
        draining=message.desired.draining,
        pinned=frozenset(Digest(digest) for digest in message.desired.pinned_adapters),
        moves=tuple(_move_from_wire(order.move) for order in by_kind.get("move", ())),
        preloads=tuple(Digest(order.preload) for order in by_kind.get("preload", ())),
        tell_sequences=any(order.tell_sequences for order in by_kind.get("tell_sequences", ())),
        takes_changes=message.takes_changes,
    )


def _move(order: MoveOrder) -> pb.Move:
    return pb.Move(
        id=order.id,
        request_ids=order.requests,
        target_worker_id=order.to.worker,
        target_address=order.to.address,
    )


def _move_from_wire(message: pb.Move) -> MoveOrder:
    return MoveOrder(
        id=message.id,
        requests=tuple(RequestId(request) for request in message.request_ids),
        to=Destination(WorkerId(message.target_worker_id), message.target_address),
    )


def _adapter(load: AdapterLoad) -> pb.AdapterLoad:
    return pb.AdapterLoad(
        digest=load.digest,
        place=_PLACES[load.place],
        bytes=load.bytes,
        running=load.running,
        waiting=load.waiting,
        pinned=load.pinned,
    )


def _adapter_from_wire(load: pb.AdapterLoad) -> AdapterLoad:
    """Places of a later release are taken for the worst."""
    return AdapterLoad(
        digest=Digest(load.digest),
        place=_PLACES_OF_WIRE.get(load.place, AdapterPlace.LOADING),
        bytes=load.bytes,
        running=load.running,
        waiting=load.waiting,
        pinned=load.pinned,
    )


def _adapters_from_wire(message: pb.WorkerReport) -> tuple[AdapterLoad, ...] | None:
    if not message.HasField("adapters"):
        return None
    return tuple(map(_adapter_from_wire, message.adapters.adapters))


def _changes_from_wire(message: pb.WorkerReport) -> AdapterChanges | None:
    if not message.HasField("adapter_changes"):
        return None
    changes = message.adapter_changes
    came = tuple(map(_adapter_from_wire, changes.adapters))
    return AdapterChanges(came, tuple(Digest(digest) for digest in changes.gone))


def _sum(sum_: SequenceSum) -> pb.SequenceSum:
    return pb.SequenceSum(count=sum_.count, tokens=sum_.tokens, tokens_left=sum_.tokens_left)


def _sum_from_wire(message: pb.SequenceSum) -> SequenceSum:
    return SequenceSum(message.count, message.tokens, message.tokens_left)


def _sums_from_wire(message: pb.WorkerReport) -> SequenceSums | None:
    if not message.HasField("sums"):
        return None
    sums = message.sums
    return SequenceSums(_sum_from_wire(sums.running), _sum_from_wire(sums.waiting))


def _times_from_wire(message: pb.WorkerReport) -> StepTimes | None:
    if not message.HasField("step_times"):
        return None
    times = message.step_times
    return StepTimes(times.base_ms, times.sequence_ms, times.token_ms)


def _sequence(load: SequenceLoad) -> pb.SequenceLoad:
    return pb.SequenceLoad(
        request_id=load.request,
        adapter_digest=load.adapter or "",
        tokens=load.tokens,
        tokens_left=load.tokens_left,
        waiting=load.waiting,
    )


def _sequences_from_wire(message: pb.WorkerReport) -> tuple[SequenceLoad, ...] | None:
    if not message.HasField("sequences"):
        return None
    return tuple(
        SequenceLoad(
            request=RequestId(load.request_id),
            adapter=Digest(load.adapter_digest) if load.adapter_digest else None,
            tokens=load.tokens,
            tokens_left=load.tokens_left,
            waiting=load.waiting,
        )
        for load in message.sequences.sequences
    )


def _moved(moved: Moved) -> pb.MoveOutcome:
    return pb.MoveOutcome(
        move_id=moved.move,
        request_id=moved.request,
        kind=_OUTCOMES[moved.outcome],
        tokens=moved.tokens,
    )


def _moved_from_wire(message: pb.MoveOutcome) -> Moved:
    """Kinds of a later release are taken for what did not leave."""
    return Moved(
        move=message.move_id,
        request=RequestId(message.request_id),
        outcome=_OUTCOMES_OF_WIRE.get(message.kind, MoveOutcome.GONE),
        tokens=message.tokens,
    )
