"""Sampling against transformers' processors, and against the formulas that APIs state."""

from collections import Counter
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from services.core.types import SamplingParams
from services.gpu_worker.model.sampler import Draw, sample
from tests.operations import Heard

VOCABULARY = 40
TOKENS = [3, 5, 5, 7, 3, 3, 9]


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def draw(prompt: int = 0, **rules: Any) -> Draw:
    sampling = SamplingParams(max_tokens=9, **({"temperature": 0.0} | rules))
    return Draw(sampling, TOKENS, prompt)


@pytest.mark.parametrize(
    ("rules", "processors"),
    [
        ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
        ({"temperature": 1.0, "top_k": 5}, [TopKLogitsWarper(5)]),
        ({"temperature": 1.0, "top_p": 0.8}, [TopPLogitsWarper(0.8)]),
        ({"temperature": 1.0, "min_p": 0.2}, [MinPLogitsWarper(0.2)]),
        (
            {"temperature": 1.3, "top_k": 20, "min_p": 0.05},
            [TemperatureLogitsWarper(1.3), TopKLogitsWarper(20), MinPLogitsWarper(0.05)],
        ),
        (
            {"temperature": 1.0, "repetition_penalty": 1.8},
            [RepetitionPenaltyLogitsProcessor(1.8)],
        ),
    ],
    ids=["temperature", "top_k", "top_p", "min_p", "all", "repetition"],
)
def test_tokens_come_as_often_as_transformers_says(
    rules: dict[str, Any], processors: list[Any]
) -> None:
    given = logits()
    process: Any = LogitsProcessorList(processors)
    expected = process(torch.tensor([TOKENS]), given.clone()).softmax(-1)[0]
    count = 4000
    draws = [draw(seed=seed, **rules) for seed in range(count)]
    seen = Counter(sampled.token for sampled in sample(given.expand(count, -1), draws))
    kept = [token for token in range(VOCABULARY) if expected[token] > 0]
    assert set(seen) <= set(kept)
    surprise = sum(
        (seen[token] - count * float(expected[token])) ** 2 / (count * float(expected[token]))
        for token in kept
        if count * float(expected[token]) >= 5
    )  # chi squared: its mean is the number of kept tokens, its variance twice that
    assert surprise < len(kept) + 5 * (2 * len(kept)) ** 0.5


def test_presence_and_frequency_are_taken_off_what_was_made_and_not_off_the_prompt() -> None:
    given = torch.zeros(1, VOCABULARY)
    given[0, [3, 5, 9]] = torch.tensor([4.0, 3.9, 3.8])
    # Of the completion (the last four tokens) 3 came twice, 7 and 9 once, 5 never.
    assert sample(given, [draw(prompt=3, presence_penalty=0.3)])[0].token == 5
    assert sample(given, [draw(prompt=3, frequency_penalty=0.09)])[0].token == 5
    assert sample(given, [draw(prompt=3, frequency_penalty=0.04)])[0].token == 3
    assert sample(given, [draw(prompt=3, frequency_penalty=-1.0)])[0].token == 3
    assert sample(given, [draw(prompt=7, presence_penalty=2.0)])[0].token == 3


def test_a_bias_moves_a_token_and_log_probabilities_stay_the_models() -> None:
    given = logits()
    [sampled] = sample(given, [draw(logit_bias=((11, 100.0),), logprobs=True, top_logprobs=1)])
    assert sampled.token == 11
    assert sampled.logprobs is not None
    assert sampled.logprobs.chosen.logprob == pytest.approx(
        float(given[0].log_softmax(-1)[11]), abs=1e-5
    )
    assert sample(given, [draw(logit_bias=((int(given.argmax()), -100.0),))])[0].token != int(
        given.argmax()
    )


def test_what_one_row_asks_for_leaves_the_others_alone() -> None:
    given = torch.cat([logits(1), logits(1)])
    plain, biased = sample(given, [draw(), draw(logit_bias=((2, 100.0),))])
    assert plain.token == int(given[0].argmax())
    assert biased.token == 2


MIXED = [
    draw(),
    draw(temperature=1.0, seed=4, logprobs=True),
    draw(temperature=0.7, seed=5, top_k=9, repetition_penalty=1.2, logprobs=True, top_logprobs=3),
    draw(logit_bias=((2, 3.0),), presence_penalty=0.2, logprobs=True, top_logprobs=1),
]


def test_what_is_chosen_comes_to_the_host_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is waited for whenever a number of it is looked at."""
    given = torch.cat([logits(seed) for seed in range(len(MIXED))])
    looked: list[torch.Tensor] = []
    to_list = torch.Tensor.tolist

    def counted(tensor: torch.Tensor) -> Any:
        looked.append(tensor)
        return to_list(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    with Heard() as heard:
        sample(given, MIXED)
    assert len(looked) == 1
    assert not heard.names & {"item", "_local_scalar_dense", "nonzero"}


def test_log_probabilities_are_each_rows_own_to_the_last_bit() -> None:
    given = torch.cat([logits(seed) for seed in range(len(MIXED))])
    for row, draw_, sampled in zip(given, MIXED, sample(given, MIXED), strict=True):
        assert sampled == sample(row.unsqueeze(0), [draw_])[0]
        if sampled.logprobs is None:
            assert not draw_.sampling.logprobs
            continue
        own = row.double().log_softmax(-1)
        top = own.topk(draw_.sampling.top_logprobs)
        assert sampled.logprobs.chosen.logprob == float(own[sampled.token])
        found = [(each.token, each.logprob) for each in sampled.logprobs.top]
        assert found == list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
