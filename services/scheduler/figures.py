"""The fleet in figures, for whoever scales it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from services.policies.autoscaling import Need, Rules, workers_wanted
from services.scheduler.demand import Demand, Demands
from services.scheduler.wishes import WorkerState
from services.scheduler.worker import Worker


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a base model. `pages_used`: share of the pages of those that serve. `pins_without_room`:
    adapters that workers should keep and have no room for, each on each."""

    base_model: str
    states: dict[WorkerState, int]
    wanted: int
    waiting: int
    longest_wait_seconds: float
    in_time: float
    pages_used: float
    pins_without_room: int = 0


def figures(fleet: Sequence[Worker], demands: Demands, rules: Rules) -> list[Figures]:
    """By base model; those that are away without having said which are of model ""."""
    asked: dict[str, Demand] = {}
    by_model: defaultdict[str, list[Worker]] = defaultdict(list)
    names = {worker.identity.base_fingerprint: worker.identity.base_model for worker in fleet}
    for base, demand in demands.by_base().items():
        asked[names.get(base) or demand.base_model or base] = demand
    for worker in fleet:
        by_model[worker.identity.base_model].append(worker)
    return [
        _of(model, by_model.get(model, []), asked.get(model, Demand()), rules)
        for model in sorted(asked.keys() | by_model.keys())
    ]


def _of(model: str, workers: Sequence[Worker], demand: Demand, rules: Rules) -> Figures:
    serving = [worker.report for worker in workers if worker.state is WorkerState.SERVING]
    total = sum(report.total_pages for report in serving)
    used = 1 - sum(report.free_pages for report in serving) / total if total else 0.0
    held = sum(worker.sequences for worker in workers)  # also of those whose sequences must go
    need = Need(
        workers=len(serving),
        sequences=held + demand.waiting,
        room=sum(report.most_sequences for report in serving),
        pages_used=used,
        longest_wait_seconds=demand.longest_wait_seconds,
        in_time=demand.in_time,
    )
    return Figures(
        base_model=model,
        states=dict(Counter(worker.state for worker in workers)),
        wanted=workers_wanted(need, rules) if model else 0,
        waiting=demand.waiting,
        longest_wait_seconds=demand.longest_wait_seconds,
        in_time=demand.in_time,
        pages_used=used,
        pins_without_room=sum(len(worker.report.without_room) for worker in workers),
    )
