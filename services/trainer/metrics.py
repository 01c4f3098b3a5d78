"""The trainer's metrics for Prometheus."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.trainer.jobs import JobState
from services.trainer.runner import Runner


class TrainerMetrics(Collector):
    """Of this trainer. Read in another thread: single numbers only."""

    def __init__(self) -> None:
        self._ended: Counter[JobState] = Counter({JobState.SUCCEEDED: 0, JobState.FAILED: 0})
        self.runner: Runner | None = None

    def ended(self, state: JobState) -> None:
        self._ended[state] += 1

    def collect(self) -> Iterator[Metric]:
        underway = 0 if self.runner is None else self.runner.underway
        yield GaugeMetricFamily("lorikeet_trainer_jobs_underway", "That it does now.", underway)
        ended = CounterMetricFamily(
            "lorikeet_trainer_jobs_ended", "By how they ended.", labels=["state"]
        )
        for state, count in list(self._ended.items()):
            ended.add_metric([state.value], count)
        yield ended
