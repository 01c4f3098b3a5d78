"""What a lost worker had begun goes on at another one, over real gRPC: the same tokens."""

from typing import Any

import pytest

from services.core.errors import InvalidRequest, Unavailable
from services.core.types import Constraint, ConstraintKind
from tests.crew import a_crew
from tests.paper_worker import PaperWorker
from tests.queue_world import World
from tests.serving import PAGES, PROMPT, a_worker

TOKENS = 24
LETTERS = Constraint(ConstraintKind.REGEX, "[a-z ]{60,90}")


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"temperature": 1.0, "seed": 7, "top_p": 0.9},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.7, "presence_penalty": 0.3},
        {"temperature": 0.8, "seed": 3, "constraint": LETTERS, "ignore_eos": False},
    ],
    ids=["greedy", "seeded", "penalties", "constraint"],
)
async def test_it_goes_on_as_it_would_have_there(rules: dict[str, Any]) -> None:
    async with a_worker() as serving:
        whole = await serving.tokens(serving.job("whole", TOKENS, rules=rules))
        for cut in (1, 9, len(whole) - 1):
            delivered = tuple(whole[:cut])
            job = serving.job(f"cut {cut}", TOKENS, rules=rules, delivered=delivered)
            assert [*delivered, *await serving.tokens(job)] == whole


async def test_it_is_refused_if_nothing_is_left_to_generate() -> None:
    async with a_worker() as serving:
        with pytest.raises(InvalidRequest, match="delivered"):
            await serving.tokens(serving.job("all", 3, delivered=(1, 2, 3)))


async def test_a_client_does_not_notice_that_its_worker_is_lost() -> None:
    async with a_crew() as crew:
        whole = await crew.fleet[0].tokens(crew.job("whole", TOKENS))
        tokens: list[int] = []
        async for piece in crew.stream(crew.job("lost", TOKENS)):
            tokens += piece.tokens
            if len(tokens) == 7:
                lost, left = crew.holder()
                await lost.server.grpc.stop(None)
        await left.runs(0)
    assert tokens == whole
    assert crew.charged == len(PROMPT) + 2 * TOKENS  # paid once
    assert [each.worker.state.free_pages for each in crew.fleet] == [PAGES, PAGES]


async def test_a_worker_of_the_release_before_is_not_asked_to_go_on() -> None:
    """It would begin anew."""

    class Older(PaperWorker):
        def serves(self, job: Any) -> bool:
            return not job.delivered

    world = World([Older(slots=2)])
    await world.ask("begun")
    (ticket,) = [each for each in world.tickets if each.delivered]
    world.workers = [Older(slots=2)]
    with pytest.raises(Unavailable, match="every worker"):
        await world.queue.turn(ticket)
