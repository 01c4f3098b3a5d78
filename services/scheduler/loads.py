"""A worker's report as what moves are planned by."""

import math

from services.core.reports import NO_SUMS, AdapterPlace, SequenceLoad, TransferTimes, WorkerReport
from services.core.types import Digest
from services.policies.migration.carriage import SECONDS_A_BYTE
from services.policies.migration.loads import WorkerLoad
from services.policies.placement.views import UNKNOWN_TIMES
from services.scheduler.wishes import WorkerState
from services.scheduler.worker import Worker

FETCH_MS = 200.0  # of an adapter that is not on a worker which has fetched none
COPY_MS = 10.0  # of one that is in its host memory, if it has copied none


def load_of(
    worker: Worker, sequences: tuple[SequenceLoad, ...] | None, coming: int = 0
) -> WorkerLoad:
    """`sequences`: all that it has; None: it told their sums alone. `coming`: tokens, of those that
    are on their way there."""
    report, identity = worker.report, worker.identity
    others = NO_SUMS if sequences is not None else report.sums or NO_SUMS
    return WorkerLoad(
        id=identity.id,
        base=identity.base_fingerprint,
        sequences=sequences or (),
        others=others,
        in_use=frozenset() if sequences is not None else _in_use(report),
        most_sequences=report.most_sequences,
        total_tokens=report.total_pages * report.page_tokens,
        free_tokens=max(0, report.free_pages * report.page_tokens - coming),
        resident=frozenset(report.resident),
        step_times=report.step_times or UNKNOWN_TIMES,
        load_ms=_typical_ms(report.load_times.fetch, FETCH_MS),
        copy_ms=_typical_ms(report.load_times.copy, COPY_MS),
        on_host=on_host(report),
        move_ms=_move_ms(report),
        adapter_tokens=_adapter_tokens(report),
        takes=worker.state is WorkerState.SERVING,
        draining=worker.state is WorkerState.DRAINING,
    )


def on_host(report: WorkerReport) -> frozenset[Digest]:
    loads = report.adapters or ()
    return frozenset(load.digest for load in loads if load.place is AdapterPlace.HOST)


def _typical_ms(times: TransferTimes | None, unknown: float) -> float:
    return unknown if times is None else times.of()


def _in_use(report: WorkerReport) -> frozenset[Digest]:
    loads = report.adapters or ()
    return frozenset(load.digest for load in loads if load.running or load.waiting)


def holds(report: WorkerReport, adapter: Digest | None) -> bool:
    """On the device or in host memory; the base model is always there."""
    return adapter is None or adapter in report.resident or adapter in on_host(report)


def _move_ms(report: WorkerReport) -> float | None:
    """Of the keys and values of a token; None if the worker does not say how large they are."""
    if not (report.page_bytes and report.page_tokens):
        return None
    return 1000 * SECONDS_A_BYTE * report.page_bytes / report.page_tokens


def _adapter_tokens(report: WorkerReport) -> int:
    """That the largest adapter which is known there takes of the pool."""
    largest = max((load.bytes for load in report.adapters or ()), default=0)
    return math.ceil(largest / report.page_bytes) * report.page_tokens if report.page_bytes else 0
