"""A worker's report on the wire."""

from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from services.core.reports import AdapterLoad, AdapterPlace, SequenceLoad, StepTimes, WorkerReport
from services.core.types import Digest, RequestId

_PLACES = {
    AdapterPlace.DEVICE: pb.ADAPTER_PLACE_DEVICE,
    AdapterPlace.HOST: pb.ADAPTER_PLACE_HOST,
    AdapterPlace.LOADING: pb.ADAPTER_PLACE_LOADING,
}
_PLACES_OF_WIRE = {wire: place for place, wire in _PLACES.items()}


def report_to_wire(report: WorkerReport) -> pb.WorkerReport:
    message = pb.WorkerReport(
        running_sequences=report.running,
        waiting_sequences=report.waiting,
        total_pages=report.total_pages,
        free_pages=report.free_pages,
        resident_adapters=report.resident,
        steps=report.steps,
        draining=report.draining,
        most_sequences=report.most_sequences,
        page_tokens=report.page_tokens,
        page_bytes=report.page_bytes,
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


def _adapters_from_wire(message: pb.WorkerReport) -> tuple[AdapterLoad, ...] | None:
    """Places of a later release are taken for the worst."""
    if not message.HasField("adapters"):
        return None
    return tuple(
        AdapterLoad(
            digest=Digest(load.digest),
            place=_PLACES_OF_WIRE.get(load.place, AdapterPlace.LOADING),
            bytes=load.bytes,
            running=load.running,
            waiting=load.waiting,
            pinned=load.pinned,
        )
        for load in message.adapters.adapters
    )


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
