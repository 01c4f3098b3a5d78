"""Single streams over either face, as clients of different manners have them."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as rpc
from lorikeet.types.v1.generation_pb2 import SamplingParams, TokenIds

CHANNELS = 8
STUCK, WHOLE, LEFT, CUT = "stuck", "whole", "left", "cut"
METERED = "metered"
SMALL_BYTES = 4096  # of the buffer of those who read slowly, or not at all
RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Told:
    """What a client knows of its request."""

    tenant: str
    face: str
    manner: str
    id: str = ""
    tokens: int = 0
    end: str = STUCK
    """How it ended: whole, left (by the client), stuck, cut (without a word), or an error."""
    said: int | None = None  # tokens, by the usage that came with the end


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for, and what it does about the answer."""

    model: str
    key: str
    prompt: tuple[int, ...]
    most: int
    seed: int
    manner: str
    leaves_after: float  # seconds
    leaves_at: int  # tokens
    rests: float  # seconds before each piece
    holds: float  # seconds


class GrpcFace:
    def __init__(self, address: str) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        self._channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
        self._stubs = [rpc.GatewayServiceStub(channel) for channel in self._channels]

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def ask(self, wish: Wish, told: Told) -> None:
        told.id = f"{wish.seed:x}"
        metadata = (("authorization", f"Bearer {wish.key}"), ("x-request-id", told.id))
        request = pb.GenerateRequest(
            model=wish.model,
            tokens=TokenIds(ids=wish.prompt),
            sampling=SamplingParams(
                max_tokens=wish.most, temperature=0.8, seed=wish.seed, ignore_eos=True
            ),
        )
        call = self._stubs[wish.seed % CHANNELS].Generate(request, metadata=metadata)
        try:
            if wish.manner in ("deaf", "half"):
                await asyncio.sleep(wish.holds)
                told.end = LEFT
                return
            async for piece in call:
                told.tokens += len(piece.tokens)
                if piece.HasField("usage"):
                    told.said, told.end = piece.usage.completion_tokens, WHOLE
                elif wish.manner == "midway" and told.tokens >= wish.leaves_at:
                    told.end = LEFT
                    return
                await asyncio.sleep(wish.rests)
            if told.end == STUCK:
                told.end = CUT
        except grpc.aio.AioRpcError as error:
            told.end = f"{error.code().name}: {error.details()}"
        finally:
            call.cancel()


class HttpFace:
    """Server-sent events over a connection for each request."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)

    async def close(self) -> None:
        """Nothing is kept."""

    async def ask(self, wish: Wish, told: Told) -> None:
        reader, writer = await self._connect(wish)
        try:
            sent = self._request(wish)
            writer.write(sent[: wish.seed % len(sent)] if wish.manner == "half" else sent)
            if wish.manner in ("deaf", "half"):
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's
                await asyncio.sleep(wish.holds)
                told.end = LEFT
            else:
                await self._follow(reader, wish, told)
        except ConnectionError as error:
            told.end = f"{type(error).__name__}: {error}"
        finally:
            if wish.seed % 2 and told.end != WHOLE:
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def _connect(self, wish: Wish) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connection = socket.socket()
        connection.setblocking(False)
        small = wish.manner in ("slow", "deaf")
        if small:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (self._host, self._port))
            return await asyncio.open_connection(
                sock=connection, limit=SMALL_BYTES if small else 1 << 16
            )
        except BaseException:
            connection.close()
            raise

    def _request(self, wish: Wish) -> bytes:
        body: dict[str, Any] = {
            "model": wish.model,
            "prompt": wish.prompt,
            "max_tokens": wish.most,
            "temperature": 0.8,
            "seed": wish.seed,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if wish.manner == "deaf":
            body["logprobs"] = 20  # enough to fill the buffers between us
        content = json.dumps(body).encode()
        head = (
            "POST /v1/completions HTTP/1.1",
            f"Host: {self._host}",
            f"Authorization: Bearer {wish.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            "Connection: close",
        )
        return "\r\n".join([*head, "", ""]).encode() + content

    async def _follow(self, reader: asyncio.StreamReader, wish: Wish, told: Told) -> None:
        status = (await reader.readline()).split()
        while line := (await reader.readline()).strip():
            name, _, value = line.decode().partition(": ")
            if name == "x-request-id":  # of one of its choices, as soon as it has them
                told.id = value.partition(".")[0]
        if status[1:2] != [b"200"]:
            told.end = f"{b' '.join(status[1:2]).decode() or CUT}: {(await reader.read()).decode()}"
            return
        async for event in _events(reader):
            if event == b"[DONE]":
                told.end = WHOLE
                return
            chunk = json.loads(event)
            if "error" in chunk:
                told.end = f"event: {chunk['error']['message']}"
                return
            if chunk.get("usage"):
                told.said = chunk["usage"]["completion_tokens"]
            told.tokens += sum(choice["text"].count("w") for choice in chunk["choices"])
            if wish.manner == "midway" and told.tokens >= wish.leaves_at:
                told.end = LEFT
                return
            await asyncio.sleep(wish.rests)
        told.end = CUT


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """What follows "data: ", until the end of the connection; sizes of chunks are passed over."""
    while line := await reader.readline():
        if line.startswith(b"data: "):
            yield line[6:].strip()
