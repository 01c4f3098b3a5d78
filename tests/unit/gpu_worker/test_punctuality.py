"""Early abort and clustering, on an engine whose clock the test turns."""

from collections.abc import Sequence

import pytest

from services.core.errors import TooLate
from services.core.types import RequestId, SamplingParams
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.loading import LoadedModel, load_model
from tests.engines import TestBench
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference

STEP, TOKEN = 0.05, 0.001  # seconds


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(save_reference(make_reference("llama"), tmp_path_factory.mktemp("llama")))


class Clock:
    """Runs an engine whose steps take as long as the test says."""

    def __init__(self, bench: TestBench) -> None:
        self.bench = bench
        self.now = 100.0
        self.first: dict[str, float] = {}
        self.refused: dict[str, float] = {}
        self.order: list[str] = []

    def submit(
        self,
        name: str,
        *,
        prompt: int = 40,
        tokens: int = 8,
        within: float | None = None,
        adapter: object = None,
    ) -> None:
        sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        request = EngineRequest(
            RequestId(name), tuple(range(2, 2 + prompt)), sampling, adapter,  # type: ignore[arg-type]
            cache_salt=name, first_token_within=within,
        )  # fmt: skip
        self.bench.engine.submit(request, self.now)

    def run(self, steps: int = 10_000) -> None:
        for _ in range(steps):
            report = self.bench.engine.step(self.now)
            for name, error in report.refused:
                assert isinstance(error, TooLate)
                self.refused[name] = self.now
            if report.is_idle:
                return
            self.now += STEP + TOKEN * report.tokens
            for name, _ in report.pieces:
                if name not in self.first:
                    self.first[name] = self.now
                    self.order.append(name)


def warm(clock: Clock) -> None:
    for index, (prompt, tokens) in enumerate([(60, 8), (5, 8), (100, 20)] * 6):
        clock.submit(f"warm{index}", prompt=prompt, tokens=tokens)
        clock.run()
    clock.order.clear()


def burst(limits: Limits, model: LoadedModel, within: float | None) -> tuple[Clock, float]:
    """Sixty requests at once where four can run."""
    clock = Clock(TestBench(model, limits, pages=400))
    warm(clock)
    start = clock.now
    for index in range(60):
        clock.submit(f"r{index}", within=within)
    clock.run()
    return clock, start


def test_a_request_that_would_be_late_is_refused_and_the_others_are_in_time(
    model: LoadedModel,
) -> None:
    limits = Limits(max_sequences=4, max_step_tokens=64)
    clock, start = burst(limits, model, within=4.0)
    assert 5 < len(clock.refused) < 55
    served = {name: clock.first[name] - start for name in clock.order}
    assert len(served) + len(clock.refused) == 60
    in_time = sum(seconds <= 4.0 for seconds in served.values())
    assert in_time >= 0.9 * len(served)
    # Most know at once, and no capacity is left unused: the last one served was served late on.
    assert sum(at == start for at in clock.refused.values()) > 0.6 * len(clock.refused)
    assert max(served.values()) > 3.0
    assert clock.bench.pool.available == clock.bench.pool.size


def test_without_it_as_many_are_late(model: LoadedModel) -> None:
    limits = Limits(max_sequences=4, max_step_tokens=64, early_abort=False)
    clock, start = burst(limits, model, within=4.0)
    assert not clock.refused
    assert sum(clock.first[name] - start > 4.0 for name in clock.order) > 20


def test_a_default_holds_for_those_who_say_nothing(model: LoadedModel) -> None:
    limits = Limits(max_sequences=4, max_step_tokens=64, first_token_seconds=4.0)
    clock, _ = burst(limits, model, within=None)
    assert clock.refused
    patient, _ = burst(Limits(max_sequences=4, max_step_tokens=64), model, within=None)
    assert not patient.refused


def test_a_worker_that_rested_long_refuses_nobody(model: LoadedModel) -> None:
    clock = Clock(TestBench(model, Limits(max_sequences=4), pages=400))
    warm(clock)
    clock.now += 1000
    clock.submit("late riser", within=1.0)
    clock.run()
    assert clock.order == ["late riser"]


def adapters_of(bench: TestBench, count: int) -> Sequence[str]:
    reference = make_reference("llama")
    digests = []
    for seed in range(count):
        adapted = adapt(reference, adapter_configs()["qv-4"], seed=seed)
        digests.append(bench.load(canonical_of(adapted, bench.model.card.fingerprint)))
        adapted.unload()
    return digests


@pytest.mark.parametrize("patience", [3, 10_000])
def test_clustering_keeps_to_the_adapters_that_run_until_patience_ends(
    model: LoadedModel, patience: int
) -> None:
    limits = Limits(max_sequences=3, clustered_adapters=2, patience_steps=patience)
    bench = TestBench(model, limits, pages=400)
    a, b, c = adapters_of(bench, 3)
    clock = Clock(bench)
    for index, adapter in enumerate([a, b, c, a, b, a, b]):
        clock.submit(f"{index}", adapter=adapter, prompt=4, tokens=30 if index < 2 else 4)
    clock.run()
    place = clock.order.index("2")
    assert place == (6 if patience > 3 else 3)
    assert sorted(clock.order) == [str(index) for index in range(7)]
