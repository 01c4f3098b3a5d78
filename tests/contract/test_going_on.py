"""What a lost worker had begun goes on at another one, over real gRPC: the same tokens."""

from contextlib import AsyncExitStack
from typing import Any

import pytest
from tokenizers import Tokenizer

from services.core.errors import InvalidRequest, Unavailable
from services.core.types import Constraint, ConstraintKind, TenantId, WorkerId
from services.gateway.base_models import ServedModel
from services.gateway.course import Completion
from services.gateway.fair_queue import FairQueue
from services.gateway.gateway import Gateway
from services.gateway.worker_line import WorkerIdentity
from services.gateway.workers import Workers
from services.policies.fairness.vtc import VirtualTokenCounters
from services.runtime.beside import beside
from tests.paper_worker import PaperWorker
from tests.queue_world import World
from tests.serving import PAGES, PROMPT, TOKEN, Serving, a_worker

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
    policy = VirtualTokenCounters()
    async with AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(a_worker()) for _ in range(2)]
        workers = Workers(TOKEN)
        stack.push_async_callback(workers.close)
        workers.name([_identity(f"w{number}", each) for number, each in enumerate(fleet)])
        queue = FairQueue(workers, lambda _: policy)
        workers.changed = queue.dispatch
        await stack.enter_async_context(beside(workers.redial(), queue.run()))
        whole = await fleet[0].tokens(fleet[0].job("whole", TOKENS))
        told = await _told(queue, fleet)
        await fleet[1].runs(0)
    assert told == whole
    assert policy._highest.of("t") == len(PROMPT) + 2 * TOKENS  # paid once
    assert [each.worker.state.free_pages for each in fleet] == [PAGES, PAGES]


async def _told(queue: FairQueue, fleet: list[Serving]) -> list[int]:
    """A request's tokens, whose worker is lost after seven of them."""
    unused: Any = None
    gateway = Gateway(base_models=unused, store=unused, queue=queue, prompts=unused)
    card = fleet[0].model.card
    base = ServedModel(card, Tokenizer.from_str(card.tokenizer_json.decode()))
    waiting = Completion(TenantId("t"), None, "m", base, fleet[0].job("lost", TOKENS))
    tokens: list[int] = []
    async for piece in gateway.stream(waiting, seconds=60):
        tokens += piece.tokens
        if len(tokens) == 7:
            (held,) = [each for each in fleet if each.worker.state.running]
            fleet.sort(key=lambda each: each is not held)
            await held.server.grpc.stop(None)
    return tokens


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


def _identity(name: str, serving: Serving) -> WorkerIdentity:
    card = serving.model.card
    return WorkerIdentity(WorkerId(name), serving.address, card.name, card.fingerprint)
