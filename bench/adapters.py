"""Many more adapters than fit: python -m bench.adapters FOLDER

FOLDER (some 25 GB for 1,000) keeps the adapters between runs; they are fetched from there, verified
and packed beside the steps, as from the store. Every comparison is made `--repeats` times in turn,
and the median of its ratios counts.
"""

import argparse
import asyncio
import statistics
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.engines import engine_request, settled_thread
from bench.results import save
from bench.streams import Timings, follow, percentile
from bench.workload import OUTPUT_TOKENS, Arrival, Folder, drawn, prompt
from services.cli.suite import embedded_model
from services.core.errors import ServingError
from services.core.types import Digest, TokenPiece
from services.gpu_worker.engine.host_cache import HostCache
from services.gpu_worker.engine.limits import Limits
from services.gpu_worker.model.adapters import AdapterReader
from services.gpu_worker.model.build import build_engine
from services.gpu_worker.model.fetching import Fetcher
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.threads import side_threads
from services.gpu_worker.worker import Worker

GIBIBYTE = 1 << 30
STREAMS = 32


@dataclass(frozen=True, slots=True)
class Claim:
    """`value` compares `this` with `that`; at least or at most `target` is wanted."""

    claim: str
    this: float
    that: float
    value: float
    target: str


@dataclass(frozen=True, slots=True)
class Setting:
    """What all parts measure with."""

    model: LoadedModel
    digests: Sequence[Digest]
    adapters: Fetcher


@asynccontextmanager
async def working(setting: Setting, *, pool_bytes: int, host_bytes: int) -> AsyncIterator[Worker]:
    thread = settled_thread()
    build = partial(
        build_engine,
        setting.model,
        memory_bytes=pool_bytes,
        limits=Limits(max_sequences=64),
        keeps_prefixes=False,
    )
    engine = thread.submit(build).result()
    asyncio.get_running_loop().set_default_executor(side_threads())
    worker = Worker(engine, setting.adapters, HostCache(host_bytes), thread)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def asking(worker: Worker, digests: Sequence[Digest]) -> Callable[..., AsyncIterator[int]]:
    async def ask(number: int, arrival: Arrival) -> AsyncIterator[int]:
        with worker.session() as session:
            worker.start(session, engine_request(number, arrival, digests))
            session.finish()
            while outcomes := await session.outcomes():
                for _, outcome in outcomes:
                    if isinstance(outcome, ServingError):
                        raise outcome
                    assert isinstance(outcome, TokenPiece)
                    yield len(outcome.tokens)

    return ask


async def rate(worker: Worker, digests: Sequence[Digest], arrivals: list[Arrival]) -> float:
    timings = await follow(asking(worker, digests), arrivals, at_once=STREAMS)
    return timings.run(arrivals).tokens_per_second


async def many(setting: Setting, asked: argparse.Namespace) -> list[Claim]:
    """32 streams: adapters drawn from 5, from 8 and from all: the same ones in every repeat, which
    are in memory by then as S-LoRA's always are, or others, most of which are not.
    """
    whole = len(setting.digests)
    draws: dict[str, tuple[int, int]] = {
        "5": (5, 0),
        "8": (8, 0),
        f"{whole}, drawn before": (whole, 0),
        f"{whole}, others": (whole, 1),
    }
    rates: dict[str, list[float]] = {name: [] for name in draws}
    async with working(
        setting, pool_bytes=int(asked.pool * GIBIBYTE), host_bytes=int(asked.host * GIBIBYTE)
    ) as worker:
        for repeat in range(asked.repeats + 1):
            for name, (count, others) in draws.items():
                arrivals = drawn(asked.requests, count, seed=others * (1 + repeat))
                measured = await rate(worker, setting.digests, arrivals)
                if repeat:
                    rates[name].append(measured)
                print(f"  {name} adapters: {measured:.1f} tokens/s", flush=True)
    return [
        _claim(f"{name} against {count}", rates[name], rates[count], target)
        for name in list(draws)[2:]
        for count, target in (("8", ">= 0.85"), ("5", ">= 0.95"))
    ]


async def oversubscribed(setting: Setting, asked: argparse.Namespace) -> list[Claim]:
    """Time to first token with as many adapters as fit, and with twice as many, at half load."""
    resident = 16
    fetched = [await setting.adapters.fetch(digest) for digest in setting.digests[:6]]
    image = statistics.mean([weights.size_bytes for weights in fetched])
    pool = int(image * resident + GIBIBYTE / 8)
    firsts: dict[int, list[float]] = {resident: [], 2 * resident: []}
    for repeat in range(asked.repeats + 1):
        for count, found in firsts.items():
            async with working(
                setting, pool_bytes=pool, host_bytes=int(asked.host * GIBIBYTE)
            ) as worker:
                ask = asking(worker, setting.digests)
                await follow(ask, drawn(2 * count, count, seed=1), at_once=8)  # warm
                arrivals = [
                    Arrival(i / asked.rate, a.prompt, a.output_tokens, a.adapter)
                    for i, a in enumerate(drawn(asked.requests // 2, count, seed=2 + repeat))
                ]
                timings = await follow(ask, arrivals)
            if repeat:
                found.append(statistics.median(timings.first))
            print(
                f"  {count} adapters: first token {timings.run(arrivals).median_first_token:.3f} s"
            )
    twice, once = firsts[2 * resident], firsts[resident]
    return [_claim("first token, 2x over-subscribed against in cache", twice, once, "<= 2")]


async def interference(setting: Setting, asked: argparse.Namespace) -> list[Claim]:
    """p99 between tokens of 16 streams, beside short requests for cold adapters or for warm."""
    p99: dict[str, list[float]] = {"cold": [], "warm": []}
    unseen = iter(range(8, len(setting.digests)))
    async with working(setting, pool_bytes=int(asked.pool * GIBIBYTE), host_bytes=1) as worker:
        ask = asking(worker, setting.digests)
        for repeat in range(asked.repeats + 1):
            for kind, found in p99.items():
                streams = [Arrival(0.0, prompt(i), 8 * OUTPUT_TOKENS, i % 8) for i in range(16)]
                others = [
                    Arrival(0.5 + i, prompt(i, 8), 1, next(unseen) if kind == "cold" else i % 8)
                    for i in range(12)
                ]
                measured = await _beside(ask, streams, others)
                if repeat:
                    found.append(percentile(measured.gaps, 0.99))
                print(f"  {kind}: p99 gap {percentile(measured.gaps, 0.99):.3f} s", flush=True)
    return [
        _claim("p99 gap of others, cold adapters against warm", p99["cold"], p99["warm"], "< 1.1")
    ]


async def _beside(ask: Any, streams: list[Arrival], others: list[Arrival]) -> Timings:
    """Timings of `streams` alone, whose request numbers come first."""

    async def shifted(number: int, arrival: Arrival) -> AsyncIterator[int]:
        async for tokens in ask(number + len(streams), arrival):
            yield tokens

    measured, _ = await asyncio.gather(follow(ask, streams), follow(shifted, others))
    return measured


def _claim(name: str, this: list[float], that: list[float], target: str) -> Claim:
    ratio = statistics.median(a / b for a, b in zip(this, that, strict=True))
    return Claim(name, statistics.median(this), statistics.median(that), ratio, target)


PARTS: dict[str, Callable[..., Coroutine[Any, Any, list[Claim]]]] = {
    "many": many,
    "oversubscribed": oversubscribed,
    "interference": interference,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.adapters")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pool", type=float, default=8, help="GiB for pages")
    parser.add_argument("--host", type=float, default=6, help="GiB for adapters in host memory")
    parser.add_argument("--rate", type=float, default=2, help="requests a second, over-subscribed")
    parser.add_argument("--parts", default=",".join(PARTS), help="a list")
    asked = parser.parse_args()
    with settled_thread() as thread:  # whose helpers end with it
        model = thread.submit(load_model, embedded_model()).result()
    asyncio.run(_measure(model, asked))


async def _measure(model: LoadedModel, asked: argparse.Namespace) -> None:
    folder = Folder(asked.folder)
    digests = folder.filled(model.card, asked.adapters)
    reader = AdapterReader(model, page_tokens=Limits().page_tokens)
    setting = Setting(model, digests, Fetcher(folder, reader))
    for name in asked.parts.split(","):
        print(name)
        claims = await PARTS[name](setting, asked)
        for claim in claims:
            print(
                f"{claim.claim}: {claim.this:.3g} against {claim.that:.3g}, "
                f"x{claim.value:.2f} (wanted {claim.target})"
            )
        save(f"adapters_{name}", {"claims": [asdict(claim) for claim in claims]})
    await setting.adapters.close()


if __name__ == "__main__":
    main()
