"""What base weights of eight bits gain on a CPU, and what they cost: python -m bench.quantised

The kinds of weights are run in turn, so that a noisy machine disturbs all of them alike; medians.
Perplexity is of the sentences in examples/adapters, in pieces of 256 tokens. Greedy tokens are the
answers to its questions: given float32's answer up to there, and on their own.
"""

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from bench.engines import settled_thread
from bench.quantised_accuracy import Accuracy, accuracies
from bench.quantised_rig import Rig
from bench.results import save
from services.gpu_worker.kernels.rounding import Kind

KINDS: tuple[Kind, ...] = ("float32", "int8", "int8-dynamic")
# Sequences in a decode step, and how many of eight adapters they have.
DECODES = ((1, 0), (8, 0), (32, 0), (32, 8))
PREFILLS = (128, 512)


@dataclass(frozen=True, slots=True)
class Speed:
    measured: str
    float32_ms: float
    int8_ms: float
    int8_dynamic_ms: float
    int8_of_float32: float
    int8_dynamic_of_float32: float


def speeds(rigs: Mapping[Kind, Rig], repeats: int) -> list[Speed]:
    works = {
        f"decode step, {sequences} sequences, {adapters} adapters": ("decode", sequences, adapters)
        for sequences, adapters in DECODES
    } | {f"prefill, {tokens} tokens": ("prefill", tokens) for tokens in PREFILLS}
    rows = []
    for name, (method, *arguments) in works.items():
        taken: dict[Kind, list[float]] = {kind: [] for kind in rigs}
        for repeat in range(repeats + 1):
            for kind, rig in rigs.items():
                seconds = getattr(rig, method)(*arguments)
                if repeat:  # the first warms up
                    taken[kind].append(seconds)
        f, i, d = (1e3 * statistics.median(taken[kind]) for kind in KINDS)
        rows.append(Speed(name, f, i, d, i / f, d / f))
    return rows


def _measure(repeats: int) -> tuple[list[Speed], list[Accuracy]]:
    rigs = {kind: Rig(kind) for kind in KINDS}
    return speeds(rigs, repeats), accuracies(rigs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.quantised")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: one for each processor")
    asked = parser.parse_args()
    with settled_thread(asked.threads) as thread:
        fast, exact = thread.submit(_measure, asked.repeats).result()
    for row in fast:
        print(
            f"{row.measured:40} {row.float32_ms:7.1f} ms  int8 x{row.int8_of_float32:.2f}  "
            f"int8-dynamic x{row.int8_dynamic_of_float32:.2f}"
        )
    for found in exact:
        print(
            f"{found.weights:12} perplexity {found.perplexity:.3f} (x{found.of_float32:.4f})  "
            f"same next token {found.same_next_token:.4f}  "
            f"before the first difference {found.same_before_first_difference:.4f}"
        )
    save(
        "quantised",
        {
            "threads": asked.threads,
            "speed": [*map(asdict, fast)],
            "accuracy": [*map(asdict, exact)],
        },
    )


if __name__ == "__main__":
    main()
