"""The engine on a small real model: budgets, pages, pins, seeds, and who gets which adapter."""

from pathlib import Path
from typing import Any

import pytest

from services.core.errors import InvalidRequest, ResourceExhausted, Unavailable
from services.core.types import Digest, FinishReason, RequestId, SamplingParams
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.loading import LoadedModel, load_model
from tests.engines import TestBench, digest_of, greedy
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


def sampled(
    name: str, *, seed: int, adapter: Digest | None = None, tokens: int = 20
) -> EngineRequest:
    sampling = SamplingParams(max_tokens=tokens, temperature=1.0, seed=seed, ignore_eos=True)
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
    bench.engine.cancel(RequestId("a"))
    report = bench.engine.step()
    assert report.free_pages == 50 - 2  # what "b" holds
    assert bench.pool.residency.pins == 0
    bench.engine.cancel(RequestId("a"))  # twice is no error
    bench.engine.cancel(RequestId("nobody"))
    while not bench.engine.step().is_idle:
        pass
    assert bench.pool.available == 50


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
    digest = digest_of(adapters["rs-16"])
    bench.engine.submit(greedy("late", PROMPT, digest, 3))
    bench.engine.submit(greedy("base", PROMPT, None, 3))
    assert bench.engine.wanted() == {digest}
    assert [name for name, _ in bench.engine.step().pieces] == ["base"]
    bench.load(adapters["rs-16"])
    assert bench.engine.wanted() == set()
    assert {name for name, _ in bench.engine.step().pieces} == {"late", "base"}


def test_a_sequence_that_gives_way_goes_on_where_it_was(model: LoadedModel) -> None:
    """Outputs are expected to be short, all turn out long, and the pool holds two of four."""
    requests = [sampled(str(index), seed=index, tokens=60) for index in range(4)]
    roomy = TestBench(model, pages=100).generate(requests)
    tight = TestBench(model, pages=13)
    tight.batcher._lengths._expected_share = 0.05
    for request in requests:
        tight.engine.submit(request)
    answers: dict[RequestId, list[int]] = {request.id: [] for request in requests}
    together = 0
    while not (report := tight.engine.step()).is_idle:
        together = max(together, report.running)
        for name, piece in report.pieces:
            answers[name] += piece.tokens
    assert answers == roomy
    assert together == 4
    assert tight.pool.available == 13


def steps_with(model: LoadedModel, watermark: float) -> tuple[int, int]:
    """Tokens that were run for requests that turn out twice as long as expected, and how many of
    them ran side by side at most.
    """
    bench = TestBench(model, Limits(watermark=watermark), pages=24)
    bench.batcher._lengths._expected_share = 0.4
    for index in range(8):
        bench.engine.submit(greedy(str(index), PROMPT, None, 60))
    tokens = together = 0
    while not (report := bench.engine.step()).is_idle:
        tokens, together = tokens + report.tokens, max(together, report.running)
    assert bench.pool.available == 24
    return tokens, together


def test_above_the_watermark_nothing_starts_so_that_less_is_computed_twice(
    model: LoadedModel,
) -> None:
    needed = 8 * (len(PROMPT) + 60 - 1)
    without, crowd = steps_with(model, 0.0)
    kept, fewer = steps_with(model, 0.3)
    assert without > kept >= needed
    assert crowd > fewer > 1


def test_an_adapter_does_not_load_on_the_watermark_while_something_runs(
    model: LoadedModel, adapters: dict[str, bytes]
) -> None:
    weights = TestBench(model).parse(adapters["rs-16"])
    digest = digest_of(adapters["rs-16"])
    bench = TestBench(model, Limits(watermark=0.2), pages=weights.pages + 6)
    bench.engine.submit(greedy("runs", PROMPT, None, 20))
    bench.engine.step()
    assert bench.engine.reserve(digest, weights) is None
    bench.engine.cancel(RequestId("runs"))
    assert bench.engine.reserve(digest, weights) is not None


def test_a_request_that_waited_long_is_overtaken_no_more(model: LoadedModel) -> None:
    bench = TestBench(model, Limits(patience_steps=20), pages=8)
    bench.engine.submit(greedy("first", PROMPT, None, 60))  # 6 of 8 pages
    bench.engine.submit(greedy("large", PROMPT, None, 100))  # all 8
    started: dict[RequestId, int] = {}
    for step in range(120):
        if step % 4 == 0:
            bench.engine.submit(greedy(f"small{step}", PROMPT[:4], None, 20))
        for name, _ in bench.engine.step().pieces:
            started.setdefault(name, step)
    assert started[RequestId("small0")] == 0  # it fits beside the first
    assert started[RequestId("large")] == 60  # nobody took what the first left


def test_request_and_adapter_must_fit_together(
    model: LoadedModel, adapters: dict[str, bytes]
) -> None:
    bench = TestBench(model, pages=30)
    weights = bench.parse(adapters["rs-16"])
    assert 18 < weights.pages < 30
    digest = digest_of(adapters["rs-16"])
    bench.engine.submit(greedy("a", PROMPT, digest, 200))
    with pytest.raises(ResourceExhausted):
        bench.engine.reserve(digest, weights)
    bench.engine.cancel(RequestId("a"))
    bench.load(adapters["rs-16"])
    bench.engine.submit(greedy("b", PROMPT, digest, 200))
    refused = bench.engine.step().refused
    assert [name for name, _ in refused] == ["b"]
