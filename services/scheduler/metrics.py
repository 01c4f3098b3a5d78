"""The scheduler's metrics for Prometheus; KEDA and horizontal pod autoscalers go by them."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.scheduler.figures import Figures
from services.scheduler.wishes import WorkerState


class FleetMetrics(Collector):
    """Read in another thread: it is given whole lists, and changes none."""

    def __init__(self) -> None:
        self._term: int | None = None
        self._figures: Sequence[Figures] = ()

    def leads(self, term: int, figures: Sequence[Figures]) -> None:
        self._term, self._figures = term, figures

    def stands_by(self) -> None:
        self._term, self._figures = None, ()

    def collect(self) -> Iterator[Metric]:
        term, known = self._term, self._figures
        leads = _gauge("leads", "Whether this scheduler leads; a standby knows nothing else.", [])
        leads.add_metric([], term is not None)
        workers = _gauge("workers", "By what they are seen to do.", ["base_model", "state"])
        wanted = _gauge("workers_wanted", "That there should be.")
        waiting = _gauge("waiting_requests", "That wait at gateways.")
        longest = _gauge("longest_wait_seconds", "That the first of them has waited.")
        in_time = _gauge("in_time_ratio", "Of first tokens, those that came in time.")
        pages = _gauge("pages_used_ratio", "Of the pages of workers that serve, those in use.")
        full = _gauge("pins_without_room", "Adapters that workers should keep and cannot.")
        for each in known:
            for state in WorkerState:
                workers.add_metric([each.base_model, state.value], each.states.get(state, 0))
            for metric, value in (
                (wanted, each.wanted),
                (waiting, each.waiting),
                (longest, each.longest_wait_seconds),
                (in_time, each.in_time),
                (pages, each.pages_used),
                (full, each.pins_without_room),
            ):
                if each.base_model:
                    metric.add_metric([each.base_model], value)
        yield from (leads, workers, wanted, waiting, longest, in_time, pages, full)


def _gauge(name: str, text: str, labels: Sequence[str] = ("base_model",)) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lorikeet_scheduler_{name}", text, labels=labels)
