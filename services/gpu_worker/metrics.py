"""The worker's metrics for Prometheus: how merging does."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.gpu_worker.engine.merging import MergeMode, Merging


class WorkerMetrics(Collector):
    """Read in another thread: it changes nothing."""

    def __init__(self, merging: Merging | None) -> None:
        self._merging = merging

    def collect(self) -> Iterator[Metric]:
        if self._merging is None:
            return
        state = self._merging.state
        mode = GaugeMetricFamily(
            "lorikeet_gpu_worker_merge_mode", "1 for that of the last step.", labels=["mode"]
        )
        for each in MergeMode:
            mode.add_metric([each.value], each is state.mode)
        yield mode
        yield CounterMetricFamily(
            "lorikeet_gpu_worker_merge_switches", "Between sets of weights.", state.switches
        )
        if state.ratio is not None:
            yield GaugeMetricFamily(
                "lorikeet_gpu_worker_merge_ratio",
                "What a merged step was found to take of an unmerged one's time.",
                state.ratio,
            )
