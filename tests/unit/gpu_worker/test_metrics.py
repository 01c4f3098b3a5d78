"""What a worker tells Prometheus."""

from prometheus_client import CollectorRegistry, generate_latest

from services.gpu_worker.engine.merging import Merging
from services.gpu_worker.engine.pool import Pool
from services.gpu_worker.metrics import WorkerMetrics
from services.policies.merging.banded import Banded, Rules


class Nothing:
    """Weights that nothing is folded into."""

    folds = 0

    def begin_fold(self, adapter: object, pages: object) -> None: ...
    def fold(self) -> bool:
        return True

    def use_folded(self) -> None: ...
    def use_own(self) -> None: ...


def told(merging: Merging | None) -> str:
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(merging))
    return generate_latest(registry).decode()


def test_of_merging_there_is_its_mode_and_its_switches() -> None:
    pool = Pool(4, page_tokens=16)
    merging = Merging(Banded(Rules(4)), Nothing(), pool, seats=4, clock=lambda: 0.0)
    found = told(merging)
    assert 'lorikeet_gpu_worker_merge_mode{mode="unmerged"} 1.0' in found
    assert 'lorikeet_gpu_worker_merge_mode{mode="mixed"} 0.0' in found
    assert "lorikeet_gpu_worker_merge_switches_total 0.0" in found
    assert "merge_ratio" not in found  # nobody knows yet


def test_without_merging_there_is_nothing() -> None:
    assert told(None) == ""
