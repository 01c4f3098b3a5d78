"""One turn of the engine: what came in, a step, what came of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from services.core.errors import ServingError
from services.core.types import Digest, RequestId, Room
from services.gpu_worker.engine.engine import Engine, StepReport, Weights
from services.gpu_worker.engine.sequence import EngineRequest
from services.policies.fairness.profile import Step, StepProfile


@dataclass(slots=True)
class Inbox:
    arrived: list[EngineRequest] = field(default_factory=list)
    cancelled: list[RequestId] = field(default_factory=list)
    staged: dict[Digest, Weights] = field(default_factory=dict)
    filled: list[Digest] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of one turn of the engine."""

    report: StepReport
    room: Room
    refused: list[tuple[RequestId, ServingError]]
    unloadable: list[tuple[Digest, ServingError]]
    fills: list[tuple[Digest, int, Callable[[], None]]]  # with bytes
    wanted: frozenset[Digest]
    resident: tuple[Digest, ...]


def take_turn(engine: Engine, inbox: Inbox, profile: StepProfile) -> Turn:
    """Everything that touches the engine, in the engine's thread."""
    now = time.monotonic()
    refused: list[tuple[RequestId, ServingError]] = []
    unloadable: list[tuple[Digest, ServingError]] = []
    fills: list[tuple[Digest, int, Callable[[], None]]] = []
    for request in inbox.arrived:
        try:
            engine.submit(request, now)
        except ServingError as error:
            refused.append((request.id, error))
    for request_id in inbox.cancelled:
        engine.cancel(request_id)
    for digest in inbox.filled:
        engine.activate(digest)
    for digest, weights in inbox.staged.items():
        try:
            fill = engine.reserve(digest, weights)
        except ServingError as error:
            unloadable.append((digest, error))
        else:
            if fill is not None:
                fills.append((digest, weights.size_bytes, fill))
    began = time.perf_counter()
    report = engine.step(now)
    if report.sequences:
        took = (time.perf_counter() - began) * 1000
        profile.observe(Step(report.prompt_tokens, report.sequences, 0, took))
    wanted = frozenset(engine.wanted())
    return Turn(report, engine.room(), refused, unloadable, fills, wanted, engine.resident)
