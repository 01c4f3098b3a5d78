"""Prefixes on a real model: fewer tokens computed, the same answers, nobody else's."""

from pathlib import Path
from typing import Any

import pytest

from services.core.types import Digest, RequestId, SamplingParams
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.loading import LoadedModel, load_model
from tests.engines import TestBench
from tests.references import adapt, adapter_configs, canonical_of
from tests.tiny_models import make_reference, save_reference

SYSTEM = [7 + i % 90 for i in range(40)]


@pytest.fixture(scope="module")
def reference() -> Any:
    return make_reference("mistral")  # with a sliding window


@pytest.fixture(scope="module")
def model(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tmp_path_factory.mktemp("tiny")
    return load_model(save_reference(reference, folder))


def ask(
    name: str, question: list[int], adapter: Digest | None = None, salt: str = ""
) -> EngineRequest:
    sampling = SamplingParams(max_tokens=12, temperature=0.7, seed=3, ignore_eos=True)
    return EngineRequest(RequestId(name), (*SYSTEM, *question), sampling, adapter, salt)


def computed(bench: TestBench, request: EngineRequest) -> tuple[int, list[int]]:
    """Tokens that were run, and the answer."""
    bench.engine.submit(request)
    count, answer = 0, []
    while not (report := bench.engine.step()).is_idle:
        count += report.tokens
        answer += [token for _, piece in report.pieces for token in piece.tokens]
    return count, answer


def test_a_second_question_computes_only_what_is_new(model: LoadedModel) -> None:
    plain = TestBench(model, pages=60)
    bench = TestBench(model, pages=60, keeps_prefixes=True)
    first, second = ask("a", [5, 6, 7]), ask("b", [8, 9])
    assert computed(bench, first) == computed(plain, first)
    count, answer = computed(bench, second)
    whole, expected = computed(plain, second)
    assert answer == expected
    assert whole - count == 32  # two whole pages of the common prompt
    count, answer = computed(bench, ask("c", [5, 6, 7, *computed(plain, first)[1], 4]))
    assert count == 8 + 11  # a conversation goes on: its own answer is known too


def test_versions_and_tenants_never_share(model: LoadedModel, reference: Any) -> None:
    bench = TestBench(model, pages=200, keeps_prefixes=True)
    plain = TestBench(model, pages=200)
    digests = []
    for seed in range(2):
        adapted: Any = adapt(reference, adapter_configs()["all-8"], seed=seed)
        data = canonical_of(adapted, model.card.fingerprint)
        adapted.unload()
        digests.append(bench.load(data))
        plain.load(data)
    spaces = [(digests[0], "x"), (digests[1], "x"), (digests[0], "y"), (None, "x")]
    for number, (adapter, salt) in enumerate(spaces):
        request = ask(str(number), [5, 6], adapter, salt)
        assert computed(bench, request) == computed(plain, request)
    count, answer = computed(bench, ask("again", [5, 6], digests[0], "x"))
    assert count < 30
    assert answer == computed(plain, ask("again", [5, 6], digests[0], "x"))[1]


def test_running_sequences_share_with_those_that_end(model: LoadedModel) -> None:
    bench = TestBench(model, pages=30, keeps_prefixes=True)
    requests = [ask(str(i), [5 + i % 3]) for i in range(9)]
    answers = bench.generate(requests)
    plain = TestBench(model, pages=200).generate(requests)
    assert answers == plain
    assert bench.pool.available == 30
