"""Tokens a second of the engine alone: python -m bench.throughput --adapters 0,8,32

Every configuration is run `--repeats` times, in turn, so that a noisy machine disturbs all of them
alike; the median counts.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from bench.engines import drive, prepare, settled_thread
from bench.results import save
from bench.streams import Run, median_run
from bench.workload import Arrival, random_adapters, s_lora_trace, saturated
from services.cli.suite import embedded_model
from services.gpu_worker.model.loading import load_model
from services.gpu_worker.model.threads import processors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.throughput")
    parser.add_argument("--model", type=Path, help="folder or GGUF file; default SmolLM2-135M")
    parser.add_argument("--adapters", default="0,8,32", help="distinct adapters, a list")
    parser.add_argument("--ranks", default="8,16,32", help="of the adapters, in turn")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(processors()))
    parser.add_argument("--rate", type=float, default=0, help="requests a second; 0: all at once")
    parser.add_argument("--cv", type=float, default=1, help="of the gaps; 1 is a Poisson process")
    parser.add_argument("--alpha", type=float, default=1, help="power law of adapters; 1: uniform")
    parser.add_argument("--seconds", type=float, default=30, help="of arrivals, with --rate")
    asked = parser.parse_args()
    thread = settled_thread(asked.threads)
    model = thread.submit(load_model, asked.model or embedded_model()).result()
    counts = [int(count) for count in asked.adapters.split(",")]
    ranks = [int(rank) for rank in asked.ranks.split(",")]
    adapters = random_adapters(model.card, max(counts), ranks=ranks)
    engine, digests = thread.submit(prepare, model, adapters).result()
    runs: dict[int, list[Run]] = {count: [] for count in counts}
    for repeat in range(asked.repeats + 1):
        for count in counts:
            run = thread.submit(drive, engine, _arrivals(asked, count), digests).result()
            if repeat:  # the first pass warms up
                runs[count].append(run)
    rows = [median_run(runs[count]) for count in counts]
    base = rows[0].tokens_per_second
    for row in rows:
        print(
            f"adapters={row.adapters:<4} requests={row.requests} "
            f"{row.tokens_per_second:7.1f} tokens/s  x{row.tokens_per_second / base:.2f}  "
            f"first token {row.median_first_token:.2f} s  p99 gap {row.p99_between_tokens:.3f} s"
        )
    save("throughput", {"threads": asked.threads, "runs": [asdict(row) for row in rows]})


def _arrivals(asked: argparse.Namespace, adapters: int) -> list[Arrival]:
    if not asked.rate:
        return saturated(asked.requests, adapters)
    return s_lora_trace(
        adapters=adapters,
        alpha=asked.alpha,
        rate=asked.rate,
        cv=asked.cv,
        seconds=asked.seconds,
    )


if __name__ == "__main__":
    main()
