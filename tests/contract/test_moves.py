"""A sequence that moves while it runs, over real gRPC: its client does not notice."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from services.core.reports import MoveOutcome
from services.core.types import RequestId
from services.gateway.course import TextPiece
from services.gpu_worker import handover
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.handover import Beginning
from tests.crew import Crew, a_crew
from tests.serving import PAGES, Serving

PROMPT = tuple(range(2, 72))  # four pages, and six tokens of a fifth
TOKENS = 40
RULES: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 7, "top_p": 0.9}]


@pytest.mark.parametrize("rules", RULES, ids=["greedy", "seeded"])
async def test_its_tokens_are_those_of_an_undisturbed_run(rules: dict[str, Any]) -> None:
    async with a_crew(keeps_prefixes=True) as crew:
        source = crew.fleet[0]
        whole = await source.tokens(crew.job("whole", TOKENS, prompt=PROMPT, rules=rules))
        pieces = await moved(crew, crew.job("moved", TOKENS, prompt=PROMPT, rules=rules), 9, 23)
        await idle(crew)
    assert [token for piece in pieces for token in piece.tokens] == whole
    assert crew.charged == len(PROMPT) + 2 * TOKENS  # paid once


async def test_its_keys_and_values_go_with_it() -> None:
    async with a_crew(keeps_prefixes=True) as crew:
        pieces = await moved(crew, crew.job("moved", TOKENS, prompt=PROMPT), 20)
        ran = sum(each.runner.tokens for each in crew.fleet)
        await idle(crew)
    whole_pages = (len(PROMPT) + 20) // 16 * 16
    again = len(PROMPT) + 20 - whole_pages
    assert len(PROMPT) + TOKENS - 1 <= ran <= len(PROMPT) + TOKENS + again
    assert pieces[-1].cached_tokens == 0  # as its first worker knew it


async def test_pages_that_were_read_are_told_of_as_free_though_nothing_runs() -> None:
    async with a_crew(keeps_prefixes=True) as crew:
        source = crew.fleet[0]
        await source.tokens(source.job("known", 1, prompt=PROMPT))
        parts = source.handover.read(Beginning(("known", None), PROMPT))
        assert (await anext(parts)).pages == len(PROMPT) // 16
        await source.tokens(source.job("beside", 1))
        assert source.worker.state.free_pages == PAGES - len(PROMPT) // 16
        await parts.aclose()
        await idle(crew)


async def test_what_its_worker_no_longer_has_is_computed_again() -> None:
    """Here because it keeps nothing."""
    async with a_crew(keeps_prefixes=False) as crew:
        whole = await crew.fleet[0].tokens(crew.job("whole", TOKENS, prompt=PROMPT))
        pieces = await moved(crew, crew.job("moved", TOKENS, prompt=PROMPT), 20)
        await idle(crew)
    assert [token for piece in pieces for token in piece.tokens] == whole


async def test_a_source_that_dies_with_them_costs_nothing_but_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "MESSAGE_BYTES", 1)  # a page a message
    async with a_crew(keeps_prefixes=True) as crew:
        whole = await crew.fleet[0].tokens(crew.job("whole", TOKENS, prompt=PROMPT))

        async def stop(source: Serving) -> None:
            crew.name(*(each for each in crew.fleet if each is not source))
            await source.server.grpc.stop(None)

        pieces = await moved(crew, crew.job("moved", TOKENS, prompt=PROMPT), 20, after=stop)
        await idle(crew)
    assert [token for piece in pieces for token in piece.tokens] == whole


async def test_it_goes_elsewhere_if_its_target_is_gone() -> None:
    async with a_crew(3, keeps_prefixes=True) as crew:
        whole = await crew.fleet[0].tokens(crew.job("whole", TOKENS, prompt=PROMPT))
        tokens: list[int] = []
        async for piece in crew.stream(crew.job("moved", TOKENS, prompt=PROMPT)):
            tokens += piece.tokens
            if len(tokens) == 5:
                source, target = crew.holder()
                crew.name(*(each for each in crew.fleet if each is not target))
                await source.worker.move(RequestId("moved"), crew.at(target))
        await idle(crew)
    assert tokens == whole


async def test_what_has_ended_or_cannot_follow_stays_where_it_is() -> None:
    async with a_crew() as crew:
        serving, other = crew.fleet
        with serving.worker.session() as session:
            job = serving.job("fixed", 30)
            request = EngineRequest(job.request_id, job.prompt, job.sampling)
            serving.worker.start(session, request)
            await serving.runs(1)
            outcome = await serving.worker.move(request.id, crew.at(other))
            assert outcome == (MoveOutcome.FIXED, 0)
        gone = await serving.worker.move(RequestId("never"), crew.at(other))
        assert gone == (MoveOutcome.GONE, 0)


async def moved(
    crew: Crew, job: Any, *at: int, after: Callable[[Serving], Any] | None = None
) -> list[TextPiece]:
    """Its pieces, when it is moved after so many tokens, and back again, and so on."""
    pieces: list[TextPiece] = []
    count, ahead = 0, list(at)
    async for piece in crew.stream(job):
        pieces.append(piece)
        count += len(piece.tokens)
        if ahead and count >= ahead[0]:
            del ahead[0]
            source, target = crew.holder()
            outcome, tokens = await source.worker.move(job.request_id, crew.at(target))
            assert outcome is MoveOutcome.LEFT
            assert tokens >= len(job.prompt) + count
            if after is not None:
                await after(source)
    assert not ahead
    return pieces


async def idle(crew: Crew) -> None:
    """Everything is given back."""
    async with asyncio.timeout(10):
        for serving in crew.fleet:
            await serving.runs(0)
            while {serving.worker.state.free_pages, serving.pool.available} != {PAGES}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
