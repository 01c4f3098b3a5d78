"""A worker and a gateway's line to it, over real gRPC: starts, cancels, failures, the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2 as pb
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as rpc
from lorikeet.types.v1 import generation_pb2 as wire
from services.core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    ServingError,
    Unavailable,
)
from services.core.types import AdapterWait, Constraint, ConstraintKind, Digest, Fingerprint
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.session import Session
from services.runtime.client import bearer
from tests.serving import PAGES, PROMPT, TOKEN, Serving, a_worker


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with a_worker() as serving:
        yield serving


async def test_many_requests_share_one_call_and_each_gets_its_own(serving: Serving) -> None:
    adapterless = [serving.job(str(n), 6) for n in range(5)]
    answers = await asyncio.gather(*(serving.tokens(job) for job in adapterless))
    alone = await serving.tokens(serving.job("alone", 6))
    assert answers == [alone] * 5


async def test_a_first_piece_says_what_was_waited_for_an_adapter(serving: Serving) -> None:
    """Once the worker has had one."""
    waits = [piece.adapter_wait async for piece in serving.pieces(serving.job("none", 3))]
    assert waits == [None] * 3
    serving.pool.reserve(Digest("1" * 64), 50, keep=0)
    serving.pool.activate(Digest("1" * 64))
    waits = [piece.adapter_wait async for piece in serving.pieces(serving.job("some", 3))]
    assert waits == [AdapterWait(seconds=0.0, sequences=1, slots=3), None, None]


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

    def breaks(session: Session, request: EngineRequest, *, movable: bool) -> None:
        if request.id == "odd":
            raise RuntimeError("a bug")
        real(session, request, movable=movable)

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
    assert serving.worker.state.free_pages == PAGES


async def test_closing_cancels_one_and_the_others_go_on(serving: Serving) -> None:
    other = asyncio.create_task(serving.tokens(serving.job("other", 40)))
    async with aclosing(serving.pieces(serving.job("gone", 2000))) as pieces:
        await anext(pieces)
    assert len(await other) == 40
    await serving.runs(0)
    assert serving.worker.state.free_pages == PAGES


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
    assert serving.worker.state.free_pages == PAGES


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
    assert serving.worker.state.free_pages == PAGES


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
