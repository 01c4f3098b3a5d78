"""The HTTP face by itself: names of requests, and failures as clients hear of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from tokenizers import Tokenizer, models

from services.core.errors import Unauthenticated, Unavailable
from services.core.types import FinishReason, TenantId, TokenPiece
from services.gateway.base_models import ServedModel
from services.gateway.gateway import Gateway
from services.gateway.http import HttpLimits, build_app
from services.gateway.intake import Intake
from services.runtime.auth import Caller
from tests.paper_worker import PaperWorker
from tests.tiny_models import tiny_card

WORDS = Tokenizer(models.WordLevel({f"w{i}": i for i in range(50)}, unk_token="w0"))
TINY = ServedModel(tiny_card(), WORDS)


class World(PaperWorker):
    """One base model on one worker, which says what it is told to, and then may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[TokenPiece] = []
        self.failure: Exception | None = None
        self.cached: list[Any] = []
        self.any_known = True

    async def authenticate(self, bearer: str, metadata: Any) -> Caller:
        if bearer != "good":
            raise Unauthenticated("this key does not work")
        return Caller(TenantId("acme"))

    async def find(self, name: str) -> ServedModel | None:
        return TINY if name == "tiny" else None

    async def tokens(self, base: ServedModel, prompt: Any) -> tuple[int, ...]:
        return (1, 2, 3)

    async def follow(self, job: Any, seconds: float) -> AsyncGenerator[TokenPiece, None]:
        for piece in self.pieces:
            await asyncio.sleep(0)
            yield piece
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    part: Any = world
    gateway = Gateway(base_models=part, store=part, queue=world.queue(), prompts=part)
    app = build_app(gateway, part, HttpLimits(60, 10_000), Intake(100))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://here", headers={"authorization": "Bearer good"}
    ) as client:
        yield client


@pytest.fixture
def client(http: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url="http://here/v1", api_key="good", max_retries=0, http_client=http
    )


def ask(client: openai.AsyncOpenAI, **changes: Any) -> Any:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "w1", "max_tokens": 3}
    return client.completions.create(**asked | changes)


@pytest.mark.parametrize("failure", [Unavailable("the worker was lost"), ZeroDivisionError()])
async def test_a_failure_in_the_middle_of_a_stream_is_an_error_of_the_client(
    world: World, client: openai.AsyncOpenAI, failure: Exception
) -> None:
    world.pieces, world.failure = [TokenPiece((4,)), TokenPiece((5,))], failure
    stream = await ask(client, stream=True)
    assert (await anext(stream)).choices[0].text
    assert (await anext(stream)).choices[0].text
    with pytest.raises(openai.APIError) as caught:
        await anext(stream)
    if isinstance(failure, Unavailable):
        assert "the worker was lost" in caught.value.message
        assert caught.value.code == "unavailable"
    else:
        assert caught.value.type == "server_error"


@pytest.mark.parametrize("failure", [Unavailable("the worker was lost"), ZeroDivisionError()])
async def test_a_failure_before_the_first_piece_is_a_status(
    world: World, client: openai.AsyncOpenAI, failure: Exception
) -> None:
    world.failure = failure
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client, stream=stream)
        assert caught.value.status_code == (503 if isinstance(failure, Unavailable) else 500)
        assert caught.value.request_id


async def test_what_nobody_foresaw_has_a_name_too(
    world: World, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(bearer: str, metadata: Any) -> Caller:
        raise ZeroDivisionError

    monkeypatch.setattr(world, "authenticate", broken)
    for path in ("/v1/models", "/v2"):
        answer = await http.get(path)
        assert answer.status_code == 500
        assert answer.headers["x-request-id"]
    assert answer.json() == {"error": "something broke on our side; the request id is in the logs"}


async def test_every_answer_names_its_request_and_no_client_chooses_the_name(
    world: World, http: httpx.AsyncClient
) -> None:
    world.pieces = [TokenPiece((4,), finish_reason=FinishReason.STOP)]
    body = {"model": "tiny", "prompt": "w1", "max_tokens": 3}
    names = set()
    for method, path, status in [
        ("GET", "/health", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/v1/models/nothing/at/all", 500),  # this world has no store
        ("PUT", "/v1/completions", 405),
        ("POST", "/v1/chat/completions", 400),
        ("POST", "/v1/completions", 200),
    ]:
        headers = {"x-request-id": "mine", "x-client-request-id": "mine"}
        answer = await http.request(method, path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        names.add(answer.headers["x-request-id"])
        if status in (404, 405):
            assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(names) == 6
    assert "mine" not in names


async def test_several_prompts_are_answered_in_order(world: World, client: Any) -> None:
    world.pieces = [TokenPiece((4, 5), finish_reason=FinishReason.LENGTH)]
    for prompt in (["w1", "w2"], [[1, 2], [3]]):
        answer = await ask(client, prompt=prompt, n=2)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert answer.usage.prompt_tokens == 6  # three each, whatever was sent; once each
        assert answer.usage.completion_tokens == 8
        assert answer.usage.prompt_tokens_details.cached_tokens == 0
    chunks = [chunk async for chunk in await ask(client, prompt=["w1", "w2"], n=2, stream=True)]
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1, 2, 3}


@pytest.mark.parametrize("prompt", [[], [[]] * 129, ["w1"] * 129, [["w1"]], [1, "w1"], [True], 5])
async def test_prompts_that_are_none_are_refused(client: Any, prompt: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(client, prompt=prompt)
    assert str(caught.value.param).startswith("prompt")
