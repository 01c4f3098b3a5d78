"""What a gateway has no room for is told so, on both faces, and costs nothing."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from services.core.errors import Unavailable
from services.core.types import RequestId, TenantId
from services.gateway.intake import Doorkeeper, Intake
from services.gateway.servicer import GatewayServicer
from services.runtime import call
from services.runtime.auth import Caller


class Slow:
    """An app whose answers wait until they may come."""

    def __init__(self, intake: Intake) -> None:
        self.may_answer = asyncio.Event()
        self.entered = asyncio.Event()
        app = FastAPI()
        app.add_middleware(Doorkeeper, intake=intake)

        @app.post("/slow")
        async def slow() -> str:
            self.entered.set()
            await self.may_answer.wait()
            return "done"

        @app.post("/quick")
        async def quick() -> str:
            return "done"

        @app.get("/health")
        async def health() -> str:
            return "ok"

        transport = httpx.ASGITransport(app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def test_what_is_beyond_it_is_told_when_to_come_back() -> None:
    intake = Intake(1)
    slow = Slow(intake)
    first = asyncio.create_task(slow.client.post("/slow"))
    await slow.entered.wait()
    refused = await slow.client.post("/quick", content=b"x" * 1000)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "unavailable"
    assert (await slow.client.get("/health")).status_code == 200
    with pytest.raises(Unavailable), intake.place():  # gRPC's requests find no room either
        pass
    slow.may_answer.set()
    assert (await first).json() == "done"
    assert (await slow.client.post("/quick")).status_code == 200
    await slow.client.aclose()


async def test_a_place_is_free_after_whatever_happened() -> None:
    intake = Intake(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="broke"), intake.place():
            raise ValueError("broke")
    with intake.place():
        pass


async def test_a_call_that_there_is_no_room_for_is_not_even_prepared() -> None:
    gateway: Any = None  # touching it would fail
    servicer = GatewayServicer(gateway, Intake(0), longest_seconds=1.0)
    call.enter(call.Call(RequestId("r"), Caller(TenantId("acme"))))
    context: Any = None
    with pytest.raises(Unavailable):
        await anext(servicer.Generate(pb.GenerateRequest(), context))
