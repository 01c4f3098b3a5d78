"""Greedy streams whose tokens are known beforehand, and how they went."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc

from bench.soak_streams import CUT, STUCK, WHOLE, Told
from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as rpc
from lorikeet.types.v1.generation_pb2 import SamplingParams, TokenIds

PATIENCE_SECONDS = 120.0  # with a stream that neither goes on nor ends
PAUSE_SECONDS = 0.5  # after an error


@dataclass(frozen=True, slots=True)
class Wish:
    tenant: str
    model: str
    prompt: tuple[int, ...]
    most: int


@dataclass(slots=True)
class Stream:
    """What came of a wish. Times are of time.monotonic()."""

    wish: Wish
    told: Told
    begun: float
    tokens: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)  # pieces with tokens
    counts: list[int] = field(default_factory=list)  # tokens, with each of them
    ended: float = 0.0

    @property
    def stall(self) -> float:
        """The longest time between two pieces."""
        return max((b - a for a, b in zip(self.at, self.at[1:], strict=False)), default=0.0)

    def had(self, when: float) -> int:
        """Tokens by then."""
        return max((n for at, n in zip(self.at, self.counts, strict=True) if at <= when), default=0)

    @property
    def wait(self) -> float:
        """For the first token."""
        return (self.at[0] if self.at else self.ended) - self.begun


def drawn_wishes(
    models: Mapping[str, Sequence[str]], *, each: int, vocabulary: int, tokens: tuple[int, int]
) -> list[Wish]:
    """So many of each model, of so many tokens at least and at most."""
    draw = random.Random(7)
    return [
        Wish(
            tenant=tenant,
            model=model,
            prompt=tuple(draw.randrange(2, vocabulary) for _ in range(draw.randint(4, 40))),
            most=draw.randint(*tokens),
        )
        for tenant, of_tenant in models.items()
        for model in of_tenant
        for _ in range(each)
    ]


class Callers:
    """Of one or more gateways, over gRPC."""

    def __init__(self, addresses: Sequence[str], keys: Mapping[str, str]) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        self._channels = [grpc.aio.insecure_channel(each, options) for each in addresses]
        self._keys = keys
        self._name = secrets.token_hex(6)
        self._count = 0
        self.streams: list[Stream] = []

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def once(self, wishes: Sequence[Wish], *, at_once: int, gateway: int = 0) -> None:
        """Every wish."""
        waiting = iter(list(wishes))

        async def caller() -> None:
            for wish in waiting:
                await self.ask(wish, gateway=gateway)

        await asyncio.gather(*(caller() for _ in range(at_once)))

    async def again_and_again(
        self, wishes: Sequence[Wish], *, at_once: int, until: float, gateway: int = 0
    ) -> None:
        """Wishes drawn anew, until it is late: then what is under way ends."""

        async def caller(number: int) -> None:
            draw = random.Random(f"{gateway} {number} {wishes[0].tenant}")
            while time.monotonic() < until:
                stream = await self.ask(draw.choice(wishes), gateway=gateway)
                if stream.told.end != WHOLE:
                    await asyncio.sleep(PAUSE_SECONDS)

        await asyncio.gather(*(caller(number) for number in range(at_once)))

    async def ask(self, wish: Wish, *, gateway: int = 0) -> Stream:
        self._count += 1
        name = f"{self._name}-{self._count}"
        stream = Stream(wish, Told(wish.tenant, "grpc", "patient", name), time.monotonic())
        self.streams.append(stream)
        stub = rpc.GatewayServiceStub(self._channels[gateway % len(self._channels)])
        metadata = (("authorization", f"Bearer {self._keys[wish.tenant]}"), ("x-request-id", name))
        request = pb.GenerateRequest(
            model=wish.model,
            tokens=TokenIds(ids=wish.prompt),
            sampling=SamplingParams(max_tokens=wish.most, temperature=0.0, ignore_eos=True),
        )
        call = stub.Generate(request, metadata=metadata)
        try:
            await _heard(stream, call)
        except grpc.aio.AioRpcError as error:
            stream.told.end = f"{error.code().name}: {error.details()}"
        except TimeoutError:
            stream.told.end = STUCK
        finally:
            call.cancel()
            stream.ended = time.monotonic()
        return stream


async def _heard(stream: Stream, call: AsyncIterable[pb.GenerateResponse]) -> None:
    pieces = aiter(call)
    while True:
        async with asyncio.timeout(PATIENCE_SECONDS):
            piece = await anext(pieces, None)
        if piece is None:
            if stream.told.end == STUCK:
                stream.told.end = CUT
            return
        if piece.tokens:
            stream.tokens += piece.tokens
            stream.told.tokens += len(piece.tokens)
            stream.at.append(time.monotonic())
            stream.counts.append(len(stream.tokens))
        if piece.HasField("usage"):
            stream.told.said, stream.told.end = piece.usage.completion_tokens, WHOLE
