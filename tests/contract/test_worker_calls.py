"""A worker and a gateway's line to it, over real gRPC: starts, cancels, failures, the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from tokenizers import Tokenizer, models

from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2 as pb
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as rpc
from lorikeet.types.v1 import generation_pb2 as wire
from services.cli.suite import free_addresses
from services.core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    ServingError,
    Unavailable,
)
from services.core.types import (
    Constraint,
    ConstraintKind,
    Digest,
    Fingerprint,
    RequestId,
    SamplingParams,
    TenantId,
    WorkerId,
)
from services.gateway.base_models import ServedModel
from services.gateway.course import Completion, Job
from services.gateway.fair_queue import FairQueue
from services.gateway.worker_line import WorkerIdentity, WorkerLine
from services.gateway.workers import Workers
from services.gpu_worker.engine.host_cache import HostCache
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.servicer import GpuWorkerServicer
from services.gpu_worker.session import Session
from services.gpu_worker.worker import Worker
from services.policies.fairness.policies import POLICIES, Knobs
from services.runtime.access import GPU_WORKER, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.client import bearer
from services.runtime.server import Server
from tests.engines import TestBench
from tests.references import smollm_folder

TOKEN = "t" * 40
PROMPT = tuple(range(2, 12))
MOST_SEQUENCES = 6
LIMITS = Limits(max_sequences=MOST_SEQUENCES)


class EmptyStore:
    async def fetch(self, digest: Digest) -> Any:
        raise Unavailable("the store is away")


@dataclass(slots=True)
class Serving:
    """A worker that serves, and a gateway's client of it."""

    model: LoadedModel
    worker: Worker
    server: Server
    workers: Workers
    address: str

    def job(self, name: str, tokens: int = 5, **more: Any) -> Job:
        card = self.model.card
        rules = {"temperature": 0.0, "ignore_eos": True} | more.pop("rules", {})
        sampling = SamplingParams(max_tokens=tokens, **rules)
        facts: dict[str, Any] = {
            "base_fingerprint": card.fingerprint, "adapter": None, "cache_salt": name
        }  # fmt: skip
        return Job(RequestId(name), card.name, prompt=PROMPT, sampling=sampling, **facts | more)

    def pieces(self, job: Job, seconds: float = 60) -> Any:
        return self.line.follow(job, seconds)

    @property
    def line(self) -> WorkerLine:
        (line,) = self.workers.lines(self.model.card.fingerprint)
        return line

    async def tokens(self, job: Job, seconds: float = 60) -> list[int]:
        return [token async for piece in self.pieces(job, seconds) for token in piece.tokens]

    async def runs(self, sequences: int) -> None:
        """Returns once so many do, and none waits."""
        async with asyncio.timeout(10):
            while (self.worker.state.running, self.worker.state.waiting) != (sequences, 0):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(smollm_folder())


@pytest.fixture
async def serving(model: LoadedModel) -> AsyncIterator[Serving]:
    worker = Worker(TestBench(model, LIMITS, pages=200).engine, EmptyStore(), HostCache(1 << 20))
    address = free_addresses().worker
    gate = Gate(ServiceToken(TOKEN), scopes_of(GPU_WORKER))
    server = Server(address=address, gate=gate, services=[GPU_WORKER])
    rpc.add_GpuWorkerServiceServicer_to_server(GpuWorkerServicer(worker, model.card), server.grpc)
    turning = asyncio.create_task(worker.run())
    await server.start()
    workers = Workers(TOKEN)
    card = model.card
    workers.name([WorkerIdentity(WorkerId("w"), address, card.name, card.fingerprint)])
    redialing = asyncio.create_task(workers.redial())
    yield Serving(model, worker, server, workers, address)
    redialing.cancel()
    await workers.close()
    await server.drain(0)
    turning.cancel()
    await asyncio.gather(turning, return_exceptions=True)


async def test_many_requests_share_one_call_and_each_gets_its_own(serving: Serving) -> None:
    adapterless = [serving.job(str(n), 6) for n in range(5)]
    answers = await asyncio.gather(*(serving.tokens(job) for job in adapterless))
    alone = await serving.tokens(serving.job("alone", 6))
    assert answers == [alone] * 5


async def test_a_failure_is_told_to_its_request_alone(serving: Serving) -> None:
    other_base = serving.job("base", base_fingerprint=Fingerprint("0" * 64))
    no_adapter = serving.job("adapter", adapter=Digest("1" * 64))
    regex = Constraint(ConstraintKind.REGEX, "[")
    no_regex = serving.job("regex", rules={"constraint": regex, "ignore_eos": False})
    found = await asyncio.gather(
        *(serving.tokens(job) for job in (other_base, no_adapter, no_regex)),
        serving.tokens(serving.job("good", 7)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in found[:3]] == [
        FailedPrecondition, Unavailable, InvalidRequest
    ]  # fmt: skip
    assert isinstance(found[3], list)
    assert len(found[3]) == 7


async def test_what_nobody_expected_ends_its_request_and_no_other(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = serving.worker.start

    def breaks(session: Session, request: EngineRequest) -> None:
        if request.id == "odd":
            raise RuntimeError("a bug")
        real(session, request)

    monkeypatch.setattr(serving.worker, "start", breaks)
    odd, good = await asyncio.gather(
        serving.tokens(serving.job("odd")), serving.tokens(serving.job("good")),
        return_exceptions=True,
    )  # fmt: skip
    assert type(odd) is ServingError
    assert "a bug" not in str(odd)
    assert isinstance(good, list)


async def test_a_deadline_ends_the_sequence_too(serving: Serving) -> None:
    with pytest.raises(DeadlineExceeded):
        await serving.tokens(serving.job("slow", 2000), seconds=0.5)
    await serving.runs(0)
    assert serving.worker.state.free_pages == 200


async def test_closing_cancels_one_and_the_others_go_on(serving: Serving) -> None:
    other = asyncio.create_task(serving.tokens(serving.job("other", 40)))
    async with aclosing(serving.pieces(serving.job("gone", 2000))) as pieces:
        await anext(pieces)
    assert len(await other) == 40
    await serving.runs(0)
    assert serving.worker.state.free_pages == 200


async def test_a_cancel_overtakes_a_grammar_that_is_still_read(serving: Serving) -> None:
    schema = {f"field{n}": {"type": "string", "maxLength": n} for n in range(200)}
    text = str({"type": "object", "properties": schema}).replace("'", '"')
    constraint = Constraint(ConstraintKind.JSON_SCHEMA, text)
    job = serving.job("gone", 2000, rules={"constraint": constraint, "ignore_eos": False})
    asking = asyncio.create_task(serving.tokens(job))
    await asyncio.sleep(0.01)
    asking.cancel()
    assert len(await serving.tokens(serving.job("next"))) == 5
    await asyncio.sleep(0.5)
    await serving.runs(0)
    assert serving.worker.state.free_pages == 200


async def test_a_broken_line_fails_what_is_on_it_and_is_opened_anew(serving: Serving) -> None:
    running = asyncio.create_task(serving.tokens(serving.job("lost", 2000)))
    await serving.runs(1)
    serving.line._call.cancel()
    with pytest.raises(ServingError):
        await running
    async with asyncio.timeout(10):
        while not serving.workers.lines(serving.model.card.fingerprint):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert len(await serving.tokens(serving.job("next"))) == 5
    await serving.runs(0)
    assert serving.worker.state.free_pages == 200


async def test_a_caller_that_closes_its_side_gets_all_that_it_started(serving: Serving) -> None:
    regex = wire.Constraint(regex="(a|b){30}")
    starts = [
        pb.Start(
            request_id=name,
            base_fingerprint=serving.model.card.fingerprint,
            prompt=PROMPT,
            sampling=wire.SamplingParams(max_tokens=6, temperature=0.0, constraint=constraint),
        )
        for name, constraint in (("plain", None), ("regex", regex))
    ]
    async with grpc.aio.insecure_channel(serving.address) as channel:
        stub: Any = rpc.GpuWorkerServiceStub(channel)
        requests = iter([pb.RunRequest(start=start) for start in starts])
        call = stub.Run(requests, metadata=bearer(TOKEN))
        pieces = [piece async for response in call for piece in response.pieces]
    ended = {piece.request_id for piece in pieces if piece.finish_reason}
    assert ended == {"plain", "regex"}
    assert not any(piece.error for piece in pieces)


async def test_one_name_runs_once_on_a_call(serving: Serving) -> None:
    start = pb.Start(
        request_id="same",
        base_fingerprint=serving.model.card.fingerprint,
        prompt=PROMPT,
        sampling=wire.SamplingParams(max_tokens=6),
    )
    async with grpc.aio.insecure_channel(serving.address) as channel:
        stub: Any = rpc.GpuWorkerServiceStub(channel)
        requests = iter([pb.RunRequest(start=start)] * 2)
        call = stub.Run(requests, metadata=bearer(TOKEN))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await serving.runs(0)


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
    assert serving.worker.state.free_pages == 200
