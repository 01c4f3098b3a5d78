"""The engine on a small real model: budgets, pages, pins, seeds, and who gets which adapter."""

from pathlib import Path
from typing import Any

import pytest

from services.core.errors import InvalidRequest, ResourceExhausted, Unavailable
from services.core.types import Digest, FinishReason, RequestId, SamplingParams
from services.gpu_worker.engine.batcher import Limits
from services.gpu_worker.engine.residency import Residency
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.loading import LoadedModel, load_model
from tests.engines import TestBench, greedy
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference

PROMPT = list(range(2, 25))


@pytest.fixture(scope="module")
def reference() -> Any:
    return make_reference("llama")


@pytest.fixture(scope="module")
def model(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tmp_path_factory.mktemp("tiny")
    return load_model(save_reference(reference, folder))


@pytest.fixture(scope="module")
def adapters(reference: Any, model: LoadedModel) -> dict[str, bytes]:
    files = {}
    for seed, (name, config) in enumerate(adapter_configs().items()):
        adapted: Any = adapt(reference, config, seed=seed)
        files[name] = canonical_of(adapted, model.card.fingerprint)
        adapted.unload()
    return files


def sampled(name: str, *, seed: int, adapter: Digest | None = None) -> EngineRequest:
    sampling = SamplingParams(max_tokens=20, temperature=1.0, seed=seed, ignore_eos=True)
    return EngineRequest(RequestId(name), tuple(PROMPT), sampling, adapter)


def test_a_draw_depends_on_its_seed_and_not_on_the_company(model: LoadedModel) -> None:
    alone = TestBench(model, pages=40).generate([sampled("a", seed=5)])[RequestId("a")]
    crowd = TestBench(model, pages=200)
    answers = crowd.generate([sampled("x", seed=1), sampled("a", seed=5), sampled("b", seed=6)])
    assert answers[RequestId("a")] == alone
    assert answers[RequestId("b")] != alone


def test_every_adapter_answers_for_itself_whatever_order_they_come_in(
    model: LoadedModel, adapters: dict[str, bytes]
) -> None:
    def ask(names: list[str]) -> dict[str, list[int]]:
        bench = TestBench(model, pages=200)
        digests = {name: bench.load(adapters[name]) for name in names}
        requests = [greedy(name, PROMPT, digest, 16) for name, digest in digests.items()]
        requests.append(greedy("base", PROMPT, None, 16))
        return {str(name): tokens for name, tokens in bench.generate(requests).items()}

    names = list(adapters)
    together, reversed_ = ask(names), ask(names[::-1])
    assert together == reversed_
    for name in names:
        alone = ask([name])
        assert alone[name] == together[name]
        assert alone["base"] == together["base"]
    assert len({tuple(tokens) for tokens in together.values()}) == len(together)


def test_a_cancelled_sequence_frees_its_pages_and_its_adapter_within_a_step(
    model: LoadedModel, adapters: dict[str, bytes]
) -> None:
    bench = TestBench(model, pages=50)
    digest = bench.load(adapters["qv-4"])
    bench.engine.submit(greedy("a", PROMPT, digest, 100))
    bench.engine.submit(greedy("b", PROMPT, None, 10))
    bench.engine.step()
    before = bench.pages.num_free
    bench.engine.cancel(RequestId("a"))
    report = bench.engine.step()
    assert report.free_pages == before + -(-(len(PROMPT) + 100) // 16)
    assert bench.residency.pins == 0
    bench.engine.cancel(RequestId("a"))  # twice is no error
    bench.engine.cancel(RequestId("nobody"))
    while not bench.engine.step().is_idle:
        pass
    assert bench.pages.num_free == 50


def test_a_waiting_request_can_be_cancelled(model: LoadedModel) -> None:
    bench = TestBench(model, Limits(max_sequences=1), pages=50)
    bench.engine.submit(greedy("a", PROMPT, None, 5))
    bench.engine.submit(greedy("b", PROMPT, None, 5))
    bench.engine.step()
    bench.engine.cancel(RequestId("b"))
    finished = []
    while not (report := bench.engine.step()).is_idle:
        finished += [name for name, _ in report.pieces]
    assert set(finished) == {"a"}


def test_a_long_prompt_does_not_stall_running_streams(model: LoadedModel) -> None:
    bench = TestBench(model, Limits(max_step_tokens=16), pages=50)
    bench.engine.submit(greedy("short", PROMPT[:4], None, 30))
    bench.engine.step()
    bench.engine.submit(greedy("long", PROMPT * 6, None, 2))
    for _ in range(8):  # 138 prompt tokens at 15 a step
        report = bench.engine.step()
        assert [name for name, _ in report.pieces] == ["short"]
        assert report.sequences == 2


def test_a_step_never_exceeds_its_budget(model: LoadedModel) -> None:
    bench = TestBench(model, Limits(max_step_tokens=10), pages=100)
    widest = 0
    forward = bench.runner.forward

    def watched(plan: Any) -> Any:
        nonlocal widest
        widest = max(widest, sum(part.count for part in plan.slices))
        return forward(plan)

    bench.runner.forward = watched  # type: ignore[method-assign]
    bench.generate([greedy(str(index), PROMPT, None, 4) for index in range(5)])
    assert widest == 10


def test_admission_waits_for_pages_and_never_overcommits(model: LoadedModel) -> None:
    bench = TestBench(model, pages=6)  # one request needs 3
    requests = [greedy(str(index), PROMPT, None, 20) for index in range(5)]
    for request in requests:
        bench.engine.submit(request)
    seen = 0
    while not (report := bench.engine.step()).is_idle:
        assert report.running <= 2
        seen += sum(piece.finish_reason is FinishReason.LENGTH for _, piece in report.pieces)
    assert seen == 5


def test_what_can_never_fit_is_refused_at_once(model: LoadedModel) -> None:
    bench = TestBench(model, Limits(max_waiting=2), pages=4)
    with pytest.raises(ResourceExhausted):
        bench.engine.submit(greedy("a", PROMPT, None, 100))
    with pytest.raises(InvalidRequest, match="context of 256"):
        bench.engine.submit(greedy("a", PROMPT * 12, None, 1))
    bench.engine.submit(greedy("a", PROMPT, None, 1))
    bench.engine.submit(greedy("b", PROMPT, None, 1))
    with pytest.raises(Unavailable):
        bench.engine.submit(greedy("c", PROMPT, None, 1))


def test_generation_ends_at_the_end_token_and_at_the_context(model: LoadedModel) -> None:
    bench = TestBench(model, pages=50)
    answer = bench.generate([greedy("a", PROMPT, None, 30)])[RequestId("a")]
    ending = answer[9]
    again = TestBench(model, pages=50)
    again.engine._end_tokens = frozenset({ending})
    polite = SamplingParams(max_tokens=30, temperature=0.0)
    found = again.generate([EngineRequest(RequestId("b"), tuple(PROMPT), polite)])[RequestId("b")]
    assert found == answer[: answer.index(ending) + 1]
    full = TestBench(model, pages=50)
    long = full.generate([greedy("c", PROMPT * 11, None, 1000)])[RequestId("c")]
    assert len(long) == 256 - 11 * len(PROMPT)


def test_a_request_waits_for_its_adapter_and_others_overtake_it(
    model: LoadedModel, adapters: dict[str, bytes]
) -> None:
    bench = TestBench(model, pages=50)
    digest = TestBench(model, pages=1).load(adapters["rs-16"])
    bench.engine.submit(greedy("late", PROMPT, digest, 3))
    bench.engine.submit(greedy("base", PROMPT, None, 3))
    assert bench.engine.wanted() == {digest}
    assert [name for name, _ in bench.engine.step().pieces] == ["base"]
    bench.load(adapters["rs-16"])
    assert bench.engine.wanted() == set()
    assert {name for name, _ in bench.engine.step().pieces} == {"late", "base"}


def test_the_least_recently_used_adapter_leaves_and_a_pinned_one_never() -> None:
    residency = Residency(100)
    one, two, three = Digest("1"), Digest("2"), Digest("3")
    residency.add(one, 40)
    residency.add(two, 40)
    residency.pin(one)
    assert residency.victims(20) == ()
    assert residency.victims(60) == (two,)
    assert residency.victims(61) is None
    residency.unpin(one)
    assert residency.victims(61) == (two, one)
    residency.pin(two)
    with pytest.raises(ValueError, match="pinned"):
        residency.drop(two)
    with pytest.raises(ResourceExhausted):
        residency.victims(101)
    residency.add(three, 20)
    assert residency.used_bytes == 100
    with pytest.raises(ValueError, match="nobody pinned"):
        residency.unpin(three)
