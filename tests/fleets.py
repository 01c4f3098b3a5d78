"""Fleets for tests of migration: workers with what they have."""

from collections.abc import Iterable, Sequence
from typing import Any

from services.core.reports import SequenceLoad, StepTimes
from services.core.types import Digest, Fingerprint, RequestId, WorkerId
from services.policies.migration.loads import PlannedMove, WorkerLoad

BASE = Fingerprint("base")
STEP_TIMES = StepTimes(base=20.0, sequence=0.1, token=0.1)


def a_sequence(
    name: str, adapter: str | None = "a", *, tokens: int = 100, left: int = 100, waits: bool = False
) -> SequenceLoad:
    return SequenceLoad(
        RequestId(name), None if adapter is None else Digest(adapter), tokens, left, waits
    )


def several(name: str, count: int, adapter: str | None = "a", **of_each: Any) -> list[SequenceLoad]:
    return [a_sequence(f"{name}{number}", adapter, **of_each) for number in range(count)]


def a_worker(
    name: str, sequences: Iterable[SequenceLoad] = (), resident: str = "abcd", **differing: Any
) -> WorkerLoad:
    """With four seats, memory for all that could come, and the adapters a to d."""
    whole: dict[str, Any] = {
        "base": BASE,
        "most_sequences": 4,
        "total_tokens": 10_000,
        "step_times": STEP_TIMES,
        "load_ms": 50.0,
        "resident": frozenset(map(Digest, resident)),
        **differing,
    }
    there = tuple(sequences)
    held = sum(each.tokens for each in there if not each.waiting)
    whole.setdefault("free_tokens", whole["total_tokens"] - held)
    return WorkerLoad(id=WorkerId(name), sequences=there, **whole)


def after(loads: Sequence[WorkerLoad], moves: Sequence[PlannedMove]) -> dict[str, set[str]]:
    """Requests by worker."""
    there = {str(load.id): {str(each.request) for each in load.sequences} for load in loads}
    for move in moves:
        there[move.source].remove(move.request)
        there[move.target].add(move.request)
    return there


def assert_room(load: WorkerLoad, loads: tuple[WorkerLoad, ...], moves: list[PlannedMove]) -> None:
    """For what comes, if nothing leaves."""
    known = {each.request: each for other in loads for each in other.sequences}
    come = [known[move.request] for move in moves if move.target == load.id]
    running = [each for each in come if not each.waiting]
    must_start = running if load.most_waiting else come
    used = {each.adapter for each in load.sequences} - {None}
    brought = {each.adapter for each in come} - used - {None}
    if must_start:
        assert len(load.sequences) + len(must_start) <= load.most_sequences
        absent = {each.adapter for each in must_start} - used - load.resident - {None}
        wanted = sum(each.tokens + each.tokens_left for each in must_start)
        promised = sum(s.tokens_left + s.tokens * s.waiting for s in load.sequences)
        extra = 0 if load.most_waiting else load.adapter_tokens * len(absent)
        assert wanted + extra <= load.free_tokens - promised
    if come:
        assert len(load.sequences) + len(come) <= load.most_sequences + load.most_waiting
        assert all(each.tokens + each.tokens_left <= load.total_tokens for each in come)
    if brought and load.most_adapters is not None:
        assert len(used) + len(brought) <= load.most_adapters
