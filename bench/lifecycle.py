"""Promote and roll back under traffic, and see whom it hurts: python -m bench.lifecycle

Streams ask one name again and again, in turns: it means one version; it means two, as half of the
requests try a canary; it is moved from one to the other and back every 50 ms; and while it means
two, a name that nobody asks for is moved as often. Every answer has to be one of the two versions'
own. A batch with two adapters takes longer than one with one, so what the moves cost is told by the
turns that have two; what of it is only the processor time of moves, by those where another moves.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc

from bench.gateway import new_key
from bench.results import save
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as lifecycle_pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as lifecycle_rpc
from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as rpc
from lorikeet.types.v1.generation_pb2 import SamplingParams
from services.cli.suite import Suite, embedded_model, free_addresses, only_one
from services.cli.upload import upload_folder

EXAMPLES = Path(__file__).parent.parent / "examples" / "adapters"
NAME, OTHER = "style", "unasked"
QUESTIONS = [f"What is {number} plus {number}?" for number in range(2, 10)]
TOKENS = 12
MOVE_SECONDS = 0.05


@dataclass(slots=True)
class Traffic:
    """Of one kind of turn: seconds to first tokens, how many answers, and which were nobody's."""

    first_tokens: list[float] = field(default_factory=list)
    answers: int = 0
    by_version: dict[int, int] = field(default_factory=lambda: {1: 0, 2: 0})
    mixed: int = 0
    moves: int = 0

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.first_tokens, n=100)[98]


@dataclass(frozen=True, slots=True)
class Row:
    turn: str
    seconds: float
    moves: int
    answers: int
    version_1: int
    version_2: int
    of_neither: int
    median_first_token: float
    p99_first_token: float


class Client:
    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._gateway = rpc.GatewayServiceStub(channel)
        self._store = lifecycle_rpc.AdapterLifecycleServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {key}"),)

    async def ask(self, model: str, question: str) -> tuple[str, float]:
        """The answer, and the seconds to its first piece."""
        chat = pb.Chat(messages=[pb.ChatMessage(role="user", content=question)])
        sampling = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
        request = pb.GenerateRequest(model=model, chat=chat, sampling=sampling)
        begun, first, text = time.perf_counter(), 0.0, ""
        async for piece in self._gateway.Generate(request, metadata=self._metadata):
            first = first or time.perf_counter() - begun
            text += piece.text
        return text, first

    async def promote(self, version: int, adapter: str = NAME) -> None:
        request = lifecycle_pb.PromoteRequest(adapter=adapter, version=str(version))
        await self._store.Promote(request, metadata=self._metadata)

    async def try_both(self) -> None:
        request = lifecycle_pb.SetCanaryRequest(adapter=NAME, version="2", percent=50)
        await self._store.SetCanary(request, metadata=self._metadata)

    async def rollback(self, adapter: str) -> None:
        request = lifecycle_pb.RollbackRequest(adapter=adapter)
        await self._store.Rollback(request, metadata=self._metadata)


Golden = Mapping[str, Mapping[str, int]]  # by question and answer, which version says so


async def turn(
    client: Client,
    traffic: Traffic,
    golden: Golden,
    *,
    streams: int,
    seconds: float,
    moving: str = "",
) -> None:
    """`moving`: the adapter that is moved meanwhile."""
    end = time.perf_counter() + seconds

    async def stream(number: int) -> None:
        asked = number
        while time.perf_counter() < end:
            question = QUESTIONS[asked % len(QUESTIONS)]
            asked += 1
            answer, first = await client.ask(NAME, question)
            version = golden[question].get(answer)
            traffic.first_tokens.append(first)
            traffic.answers += 1
            if version is None:
                traffic.mixed += 1
            else:
                traffic.by_version[version] += 1

    async def move() -> None:
        while moving and time.perf_counter() < end:
            begun = time.perf_counter()
            await (client.rollback(moving) if traffic.moves % 2 else client.promote(2, moving))
            traffic.moves += 1
            await asyncio.sleep(max(0.0, MOVE_SECONDS - (time.perf_counter() - begun)))

    await asyncio.gather(move(), *(stream(number) for number in range(streams)))


async def measure(server: str, key: str, *, streams: int, turns: int, seconds: float) -> list[Row]:
    async with grpc.aio.insecure_channel(server) as channel:
        client = Client(channel, key)
        golden: dict[str, dict[str, int]] = {}
        for question in QUESTIONS:
            answers = [(await client.ask(f"{NAME}@{v}", question))[0] for v in (1, 2)]
            if answers[0] == answers[1]:
                raise SystemExit(f"both versions say the same to {question!r}")
            golden[question] = {answers[0]: 1, answers[1]: 2}
        await client.promote(1)
        moved = {"one version": "", "two versions": "", "another moving": OTHER, "moving": NAME}
        kinds = {kind: Traffic() for kind in moved}
        await turn(client, Traffic(), golden, streams=streams, seconds=5)
        for _ in range(turns):
            for kind, traffic in kinds.items():
                await client.promote(1)
                await client.promote(1, OTHER)
                if kind in ("two versions", "another moving"):
                    await client.try_both()
                of = moved[kind]
                await turn(client, traffic, golden, streams=streams, seconds=seconds, moving=of)
                print(f"{kind}: {traffic.answers} answers, {traffic.moves} moves", flush=True)
        return [row(kind, turns * seconds, traffic) for kind, traffic in kinds.items()]


def row(kind: str, seconds: float, traffic: Traffic) -> Row:
    return Row(
        turn=kind,
        seconds=seconds,
        moves=traffic.moves,
        answers=traffic.answers,
        version_1=traffic.by_version[1],
        version_2=traffic.by_version[2],
        of_neither=traffic.mixed,
        median_first_token=statistics.median(traffic.first_tokens),
        p99_first_token=traffic.p99,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.lifecycle")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0, help="of a turn")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home, only_one(Path(home)):
        suite = Suite(Path(home), free_addresses(), embedded_model(), memory_mebibytes=2048)
        try:
            profile = suite.start(lambda step: print(step, flush=True))
            key = new_key(profile.server, profile.operator_token)
            with grpc.insecure_channel(profile.server) as channel:
                who = (("authorization", f"Bearer {key}"),)
                for example in ("pirate", "json"):
                    for name in (NAME, OTHER):
                        upload_folder(channel, who, EXAMPLES / example, adapter=name)
            rows = asyncio.run(
                measure(
                    profile.server,
                    key,
                    streams=asked.streams,
                    turns=asked.turns,
                    seconds=asked.seconds,
                )
            )
        finally:
            suite.stop()
    *quiet, moving = rows
    print(f"answers of neither version: {sum(row.of_neither for row in rows)} (wanted 0)")
    for other in quiet:
        ratio = moving.p99_first_token / other.p99_first_token
        print(f"p99 first token, moving against {other.turn}: x{ratio:.3f} (wanted < 1.1)")
    save("lifecycle", {"rows": [asdict(each) for each in rows]})


if __name__ == "__main__":
    main()
