"""64 streams over 8 adapters at once: each says what it says alone (a third of them are asked)."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from tests.integration.conftest import Running

ADAPTERS = [f"random-{number}" for number in range(8)]
QUESTIONS = [
    "What is gravity?",
    "Name three colours.",
    "Why is the sky blue?",
    "Tell me a joke.",
    "How do I boil an egg?",
    "What is 12 times 12?",
    "Who wrote Hamlet?",
    "Translate 'good morning' to French.",
]


@pytest.mark.timeout(400)
def test_64_streams_over_8_adapters_are_each_their_single_answer(
    running: Running, tmp_path: Path
) -> None:
    running.add_tenant("crowd")
    for number, name in enumerate(ADAPTERS):
        running.upload_random("crowd", name, tmp_path, seed=number)
    requests = [
        running.ask(
            adapter,
            question,
            max_tokens=12,
            ignore_eos=True,
            temperature=index % 2 * 0.8,
            seed=index * 8 + number,
        )
        for number, adapter in enumerate(ADAPTERS)
        for index, question in enumerate(QUESTIONS)
    ]

    def answer(request: pb.GenerateRequest) -> tuple[tuple[int, ...], pb.GenerateResponse]:
        pieces = list(running.generate(request, tenant="crowd"))
        return tuple(token for piece in pieces for token in piece.tokens), pieces[-1]

    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(answer, requests))
    peak = max(last.batch.peak_sequences for _, last in together)
    adapters = max(last.batch.peak_adapters for _, last in together)
    assert peak >= 32, "they did not run at once"
    assert adapters == 8
    said = [tokens for tokens, _ in together]
    assert said[::3] == [answer(request)[0] for request in requests[::3]]
    assert all(len(tokens) == 12 for tokens in said)
    assert len(set(said)) > 50
    report = running.quiet()
    assert report.free_pages == report.total_pages
