"""Completions that must match something, on the real vocabulary."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from services.core.errors import FailedPrecondition, InvalidRequest, ResourceExhausted
from services.core.types import Constraint, ConstraintKind, FinishReason, RequestId, SamplingParams
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.grammar import Grammars
from services.gpu_worker.model.loading import LoadedModel, load_model
from tests.engines import TestBench
from tests.references import smollm_folder
from tests.tiny_models import make_reference, save_reference

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["egg", "tea"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(smollm_folder())


@pytest.fixture(scope="module")
def grammars(model: LoadedModel) -> Grammars:
    return Grammars(model.card)


def complete(
    model: LoadedModel, grammars: Grammars, constraints: list[Constraint | None], **rules: Any
) -> list[tuple[str, FinishReason]]:
    """All of them in one batch."""
    bench = TestBench(model, pages=60)
    tokenizer = Tokenizer.from_str(model.card.tokenizer_json.decode())
    prompt = tuple(tokenizer.encode("The recipe as JSON:").ids)
    made: dict[RequestId, list[int]] = {}
    ended: dict[RequestId, FinishReason] = {}
    for index, constraint in enumerate(constraints):
        sampling = SamplingParams(max_tokens=80, constraint=constraint, seed=index, **rules)
        filtered = None if constraint is None else grammars.filter(constraint)
        request = EngineRequest(RequestId(str(index)), prompt, sampling, filter=filtered)
        made[request.id] = []
        bench.engine.submit(request)
    while not (report := bench.engine.step()).is_idle:
        for request_id, piece in report.pieces:
            made[request_id] += piece.tokens
            if piece.finish_reason is not None:
                ended[request_id] = piece.finish_reason
    assert bench.pool.available == bench.pool.size
    return [(tokenizer.decode(made[name]), ended[name]) for name in made]


def test_each_of_a_batch_matches_its_own(model: LoadedModel, grammars: Grammars) -> None:
    constraints = [
        Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(SCHEMA)),
        Constraint(ConstraintKind.REGEX, "[A-F]{3}-[0-9]{4}"),
        Constraint(ConstraintKind.GRAMMAR, 'start: "yes" | "no, never"'),
        None,
    ]
    for temperature in (0.0, 1.5):
        answers = complete(model, grammars, constraints, temperature=temperature)
        found = json.loads(answers[0][0])
        assert set(found) == {"name", "age", "tags"}
        assert 0 <= found["age"] <= 120
        assert set(found["tags"]) <= {"egg", "tea"}
        assert re.fullmatch("[A-F]{3}-[0-9]{4}", answers[1][0])
        assert answers[2][0] in ("yes", "no, never")
        assert [reason for _, reason in answers[:3]] == [FinishReason.STOP] * 3


def test_a_sequence_that_gave_way_goes_on_with_its_constraint(
    model: LoadedModel, grammars: Grammars
) -> None:
    constraint = Constraint(ConstraintKind.REGEX, "[0-9]{40}")
    sampling = SamplingParams(max_tokens=60, constraint=constraint, temperature=0.0)
    bench = TestBench(model, pages=60)
    request = EngineRequest(RequestId("a"), (5, 6, 7), sampling, filter=grammars.filter(constraint))
    bench.engine.submit(request)
    tokens: list[int] = []
    for _ in range(10):
        tokens += [token for _, piece in bench.engine.step().pieces for token in piece.tokens]
    bench.batcher._preempt(next(iter(bench.batcher._running.values())))
    while not (report := bench.engine.step()).is_idle:
        tokens += [token for _, piece in report.pieces for token in piece.tokens]
    tokenizer = Tokenizer.from_str(model.card.tokenizer_json.decode())
    assert re.fullmatch("[0-9]{40}", tokenizer.decode(tokens))


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint(ConstraintKind.JSON_SCHEMA, "{"),
        Constraint(ConstraintKind.JSON_SCHEMA, '{"type": "wizard"}'),
        Constraint(ConstraintKind.REGEX, "("),
        Constraint(ConstraintKind.REGEX, "(?=a)a"),
        Constraint(ConstraintKind.GRAMMAR, "start: missing"),
    ],
    ids=["no JSON", "no such type", "open", "look-around", "no such rule"],
)
def test_what_cannot_be_followed_is_refused(grammars: Grammars, constraint: Constraint) -> None:
    with pytest.raises(InvalidRequest):
        grammars.filter(constraint)


def test_a_constraint_that_goes_too_far_ends_its_own_request_only(
    model: LoadedModel, grammars: Grammars
) -> None:
    endless = Constraint(ConstraintKind.REGEX, "(a{1000}){1000}{1000}")
    bench = TestBench(model, pages=60)
    for name, constraint in (("bad", endless), ("good", None)):
        sampling = SamplingParams(max_tokens=12, constraint=constraint, temperature=0.0)
        filtered = None if constraint is None else grammars.filter(constraint)
        bench.engine.submit(EngineRequest(RequestId(name), (5, 6), sampling, filter=filtered))
    refused: list[tuple[RequestId, Exception]] = []
    made = 0
    while not (report := bench.engine.step()).is_idle:
        refused += report.refused
        made += sum(len(piece.tokens) for name, piece in report.pieces if name == "good")
    assert [(name, type(error)) for name, error in refused] == [("bad", ResourceExhausted)]
    assert made == 12
    assert bench.pool.available == bench.pool.size


def test_a_model_whose_vocabulary_cannot_be_read_still_runs(tmp_path: Path) -> None:
    tiny = load_model(save_reference(make_reference("llama"), tmp_path))
    grammars = Grammars(tiny.card)
    with pytest.raises(FailedPrecondition, match="tokenizer"):
        grammars.filter(Constraint(ConstraintKind.REGEX, "a"))
