"""Tokens a second of the engine alone: python -m bench.throughput --adapters 0,8,32

Every configuration is run `--repeats` times, in turn, so that a noisy machine disturbs all of them
alike; the median counts.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.results import save
from bench.workload import Arrival, random_adapters, saturated
from services.adapter_store.canonical import CanonicalAdapter
from services.cli.suite import embedded_model
from services.core.types import Digest, RequestId, SamplingParams
from services.gpu_worker.engine.batcher import Limits
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.model.adapters import AdapterReader
from services.gpu_worker.model.build import build_engine
from services.gpu_worker.model.loading import LoadedModel, load_model

GIBIBYTE = 1 << 30


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over a workload. Rates count output tokens; times are seconds."""

    adapters: int
    requests: int
    tokens_per_second: float
    seconds: float
    median_first_token: float
    p99_between_tokens: float


def drive(engine: Engine, arrivals: Sequence[Arrival], digests: Sequence[Digest]) -> Run:
    """Submit every request when it is due and step until all are done."""
    due = sorted(enumerate(arrivals), key=lambda pair: pair[1].at)
    born: dict[RequestId, float] = {}
    last: dict[RequestId, float] = {}
    first, gaps, tokens = [], [], 0
    start = time.perf_counter()
    wanted = sum(arrival.output_tokens for arrival in arrivals)
    while tokens < wanted:
        now = time.perf_counter() - start
        while due and due[0][1].at <= now:
            index, arrival = due.pop(0)
            request = _request(index, arrival, digests)
            born[request.id] = now
            engine.submit(request)
        report = engine.step()
        now = time.perf_counter() - start
        for request_id, piece in report.pieces:
            tokens += len(piece.tokens)
            if request_id in last:
                gaps.append(now - last[request_id])
            else:
                first.append(now - born[request_id])
            last[request_id] = now
        if report.is_idle and due:
            time.sleep(max(0.0, due[0][1].at - now))
    seconds = time.perf_counter() - start
    return Run(
        adapters=len({arrival.adapter for arrival in arrivals} - {None}),
        requests=len(arrivals),
        tokens_per_second=tokens / seconds,
        seconds=seconds,
        median_first_token=statistics.median(first),
        p99_between_tokens=sorted(gaps)[int(len(gaps) * 0.99)] if gaps else 0.0,
    )


def _request(index: int, arrival: Arrival, digests: Sequence[Digest]) -> EngineRequest:
    sampling = SamplingParams(max_tokens=arrival.output_tokens, temperature=0.0, ignore_eos=True)
    adapter = None if arrival.adapter is None else digests[arrival.adapter]
    return EngineRequest(RequestId(str(index)), arrival.prompt, sampling, adapter)


def prepare(
    model: LoadedModel, adapters: Iterable[CanonicalAdapter]
) -> tuple[Engine, list[Digest]]:
    """An engine with these adapters resident."""
    engine = build_engine(
        model, memory_bytes=6 * GIBIBYTE, limits=Limits(max_sequences=64), keeps_prefixes=False
    )
    reader = AdapterReader(model, page_tokens=Limits().page_tokens)
    digests = []
    for adapter in adapters:
        weights = reader.read(adapter.data, adapter.digest)
        fill = engine.reserve(adapter.digest, weights)
        assert fill is not None
        fill()
        engine.activate(adapter.digest)
        digests.append(adapter.digest)
    return engine, digests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.throughput")
    parser.add_argument("--model", type=Path, help="folder or GGUF file; default SmolLM2-135M")
    parser.add_argument("--adapters", default="0,8,32", help="distinct adapters, a list")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = load_model(asked.model or embedded_model())
    counts = [int(count) for count in asked.adapters.split(",")]
    engine, digests = prepare(model, random_adapters(model.card, max(counts)))
    runs: dict[int, list[Run]] = {count: [] for count in counts}
    for repeat in range(asked.repeats + 1):
        for count in counts:
            run = drive(engine, saturated(asked.requests, count), digests)
            if repeat:  # the first pass warms up
                runs[count].append(run)
    rows = [_median(runs[count]) for count in counts]
    base = rows[0].tokens_per_second
    for row in rows:
        print(
            f"adapters={row.adapters:<4} requests={row.requests} "
            f"{row.tokens_per_second:7.1f} tokens/s  x{row.tokens_per_second / base:.2f}  "
            f"first token {row.median_first_token:.2f} s  p99 gap {row.p99_between_tokens:.3f} s"
        )
    save("throughput", {"threads": asked.threads, "runs": [asdict(row) for row in rows]})


def _median(runs: Sequence[Run]) -> Run:
    return sorted(runs, key=lambda run: run.tokens_per_second)[len(runs) // 2]


if __name__ == "__main__":
    main()
