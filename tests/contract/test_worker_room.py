"""A worker's room as a gateway counts it, over real gRPC: nothing waits, and none of it is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from tokenizers import Tokenizer, models

from services.core.errors import FailedPrecondition
from services.core.reports import LoadTimes
from services.core.types import Constraint, ConstraintKind, Digest, Fingerprint, TenantId
from services.gateway.base_models import ServedModel
from services.gateway.course import Completion, Job
from services.gateway.fair_queue import FairQueue
from services.policies.fairness.policies import POLICIES, Knobs
from tests.serving import MOST_SEQUENCES, PAGES, Serving, a_worker


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with a_worker() as serving:
        yield serving


async def test_what_was_promised_counts_until_the_worker_counts_it(serving: Serving) -> None:
    line = serving.line
    async with asyncio.timeout(10):
        while not line.has_room:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def promises() -> int:
        made: list[Job] = []
        while len(made) < 100 and line.fits(job := serving.job(f"p{len(made)}", 1)):
            line.promise(job)
            made.append(job)
        for job in made:
            line.withdraw(job.request_id)
        return len(made)

    slots = promises()
    assert slots == MOST_SEQUENCES + 1  # and one that takes the place of the first that ends
    running = [
        asyncio.create_task(serving.tokens(serving.job(str(n), 300))) for n in range(MOST_SEQUENCES)
    ]
    for told in ("sent", "counted"):
        await asyncio.sleep(0)
        assert promises() == slots - MOST_SEQUENCES, told
        await serving.runs(MOST_SEQUENCES)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await serving.runs(0)
    async with asyncio.timeout(10):
        while promises() != slots:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_start_that_fails_or_is_withdrawn_gives_its_room_back(serving: Serving) -> None:
    for name in range(3 * MOST_SEQUENCES):
        other_base = serving.job(f"base{name}", base_fingerprint=Fingerprint("0" * 64))
        with pytest.raises(FailedPrecondition):
            await serving.tokens(other_base)
        schema = Constraint(ConstraintKind.JSON_SCHEMA, '{"type": "object"}')
        rules = {"constraint": schema, "ignore_eos": False}
        gone = asyncio.create_task(serving.tokens(serving.job(f"gone{name}", 9, rules=rules)))
        await asyncio.sleep(0)
        gone.cancel()
    async with asyncio.timeout(10):
        while not serving.line.fits(serving.job("next")):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert len(await serving.tokens(serving.job("next"))) == 5


async def test_no_more_waits_in_a_worker_than_follows_at_once(serving: Serving) -> None:
    queue = FairQueue(serving.workers, lambda _: POLICIES["vtc"](Knobs()))
    serving.workers.changed = queue.dispatch
    waited: list[int] = []

    async def ask(number: int) -> int:
        job = serving.job(str(number), 6)
        base = ServedModel(serving.model.card, Tokenizer(models.WordLevel({})))
        tenant = TenantId(f"t{number % 3}")
        async with queue.entered(Completion(tenant, None, "m", base, job)) as ticket:
            line = await queue.turn(ticket)
            made = 0
            async with aclosing(line.follow(job, 60)) as pieces:
                async for piece in pieces:
                    made += len(piece.tokens)
                    waited.append(serving.worker.state.waiting)
            return made

    async with asyncio.timeout(10):
        while not serving.line.has_room:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    answers = await asyncio.gather(*(ask(number) for number in range(30)))
    assert answers == [6] * 30
    assert max(waited) <= 1
    await serving.runs(0)
    assert serving.worker.state.free_pages == PAGES


async def test_adapters_that_run_there_are_known_with_their_ranks(serving: Serving) -> None:
    adapter = Digest("a" * 64)
    job = serving.job("ranked", adapter=adapter, adapter_rank=16)
    assert serving.line.view.ranks == {}
    serving.line.promise(job)
    assert serving.line.view.ranks == {adapter: 16}
    assert adapter in serving.line.adapters
    serving.line.withdraw(job.request_id)
    assert serving.line.view.ranks == {}
    assert adapter not in serving.line.adapters


async def test_a_gateway_weighs_what_loads_take_as_the_worker_has_measured(
    serving: Serving,
) -> None:
    serving.worker._fetches.transfers.took(1 << 20, 50.0)
    await serving.tokens(serving.job("news"))
    assert serving.line.view.load_times == serving.worker.load_times != LoadTimes()
