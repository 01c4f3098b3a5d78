"""A mixed batch of the base model and many adapters against transformers and peft."""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Any

import torch

from services.core.types import Digest
from tests.engines import TestBench, greedy
from tests.references import adapt, adapter_configs, canonical_of, logits_of


def with_adapters(
    reference: Any, names: Collection[str] = tuple(adapter_configs())
) -> Iterator[tuple[str, Any]]:
    """The reference with one adapter after the other, always the same; each only until the next."""
    for seed, name in enumerate(names):
        adapted: Any = adapt(reference, adapter_configs()[name], seed=seed)
        yield name, adapted
        adapted.unload()


def assert_a_mixed_batch_agrees(
    bench: TestBench,
    reference: Any,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    names: Collection[str] = tuple(adapter_configs()),
) -> None:
    """Every logit within 1e-4, every token the same, and nothing held at the end."""
    digests: dict[str, Digest | None] = {"base": None}
    for name, adapted in with_adapters(reference, names):
        digests[name] = bench.load(canonical_of(adapted, bench.model.card.fingerprint))
    requests = {
        (name, index): greedy(f"{name}/{index}", prompt, digest, tokens)
        for name, digest in digests.items()
        for index, prompt in enumerate(prompts)
    }
    answers = bench.generate(list(requests.values()))
    for name, adapted in chain([("base", reference)], with_adapters(reference, names)):
        for index, prompt in enumerate(prompts):
            request = requests[name, index]
            answer = answers[request.id]
            expected = logits_of(adapted, [*prompt, *answer[:-1]])[len(prompt) - 1 :]
            torch.testing.assert_close(bench.logits(request.id), expected, atol=1e-4, rtol=0)
            assert expected.argmax(-1).tolist() == answer, request.id
    assert bench.pool.available == bench.pool.size
    assert bench.pool.residency.pins == 0
