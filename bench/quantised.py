"""What base weights of eight bits gain on a CPU, and what they cost: python -m bench.quantised

The kinds of weights are run in turn, so that a noisy machine disturbs all of them alike; medians.
Perplexity is of the sentences in examples/adapters, in pieces of 256 tokens. Greedy tokens are the
answers to its questions: given float32's answer up to there, and on their own.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from bench.engines import engine_request, prepare, settled_thread
from bench.results import save
from bench.workload import Arrival, prompt, random_adapters
from services.cli.suite import embedded_model
from services.core.types import Digest
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.cpu.quantised import Kind
from services.gpu_worker.kernels.device import Span
from services.gpu_worker.kernels.reference import Places
from services.gpu_worker.model.arena import Arena
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.step import StepInputs

KINDS: tuple[Kind, ...] = ("float32", "int8", "int8-dynamic")
TEXT = Path(__file__).parent.parent / "examples" / "adapters" / "conversations.tsv"
PAGE_TOKENS = 16
PIECE = 256  # tokens
ANSWER = 48
STEPS = 8
# Sequences in a decode step, and how many of eight adapters they have.
DECODES = ((1, 0), (8, 0), (32, 0), (32, 8))
PREFILLS = (128, 512)

Answers = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Speed:
    measured: str
    float32_ms: float
    int8_ms: float
    int8_dynamic_ms: float
    int8_of_float32: float
    int8_dynamic_of_float32: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    weights: str
    perplexity: float
    of_float32: float
    same_next_token: float
    same_before_first_difference: float


class Rig:
    """A model with one kind of weights, in an engine."""

    def __init__(self, kind: Kind) -> None:
        self.model: LoadedModel = load_model(embedded_model(), device=CpuDevice(kind))
        adapters = random_adapters(self.model.card, 8)
        self._engine, self._digests = prepare(self.model, adapters, memory_bytes=1 << 30)

    def decode(self, sequences: int, adapters: int) -> float:
        """Seconds of a step in which every sequence gets a token."""
        engine = self._engine
        for index in range(sequences):
            adapter = index % adapters if adapters else None
            arrival = Arrival(0.0, prompt(index, 32), STEPS + sequences, adapter)
            engine.submit(engine_request(index, arrival, self._digests))
        while engine.step().tokens != sequences:
            pass
        taken = statistics.median(_timed(engine) for _ in range(STEPS // 2))
        while not engine.step().is_idle:
            pass
        return taken

    def prefill(self, tokens: int) -> float:
        self._engine.submit(engine_request(0, Arrival(0.0, prompt(0, tokens), 1, None), []))
        begun = time.perf_counter()
        while not self._engine.step().is_idle:
            pass
        return time.perf_counter() - begun

    def answer(self, questions: Sequence[Sequence[int]]) -> list[list[int]]:
        arrivals = [Arrival(0.0, tuple(question), ANSWER, None) for question in questions]
        engine, no_digests = self._engine, list[Digest]()
        found: list[list[int]] = [[] for _ in arrivals]
        for index, arrival in enumerate(arrivals):
            engine.submit(engine_request(index, arrival, no_digests))
        while not (report := engine.step()).is_idle:
            for request, piece in report.pieces:
                found[int(request)] += piece.tokens
        return found

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Of every position."""
        network, at = self.model.network, torch.arange(len(tokens))
        device, config = network.device, network.config
        pages = -(-len(tokens) // PAGE_TOKENS)
        arena = Arena(config, device, pages=pages, page_tokens=PAGE_TOKENS)
        layout = device.layout(
            [Span(0, len(tokens), 0, range(pages))],
            page_tokens=PAGE_TOKENS,
            group=config.heads // config.kv_heads,
            window=config.sliding_window,
        )
        places = Places(*network.rope.at(at), pages=at // PAGE_TOKENS, offsets=at % PAGE_TOKENS)
        deltas = device.deltas([], len(tokens))
        step = StepInputs(device.integers(tokens), places, layout, deltas, at)
        return network.forward(step, arena.caches)


def _timed(engine: Engine) -> float:
    begun = time.perf_counter()
    engine.step()
    return time.perf_counter() - begun


def speeds(rigs: dict[Kind, Rig], repeats: int) -> list[Speed]:
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


def perplexity(rig: Rig, pieces: Sequence[Sequence[int]]) -> float:
    losses = [
        torch.nn.functional.cross_entropy(
            rig.logits(piece)[:-1].double(), torch.tensor(piece[1:]), reduction="none"
        )
        for piece in pieces
    ]
    return float(torch.cat(losses).mean().exp())


def accuracies(rigs: dict[Kind, Rig]) -> list[Accuracy]:
    tokenizer = Tokenizer.from_str(rigs["float32"].model.card.tokenizer_json.decode())
    with TEXT.open() as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    text = tokenizer.encode("\n".join(f"{x['question']} {x['answer']}" for x in lines)).ids
    pieces = [text[at : at + PIECE] for at in range(0, len(text) - 1, PIECE)]
    questions = [tokenizer.encode(x["question"]).ids for x in lines[::2]]
    wanted = rigs["float32"].answer(questions)
    found = {kind: perplexity(rig, pieces) for kind, rig in rigs.items()}
    return [
        Accuracy(
            kind,
            found[kind],
            found[kind] / found["float32"],
            same_next(rig, questions, wanted),
            same_start(rig.answer(questions), wanted),
        )
        for kind, rig in rigs.items()
    ]


def same_next(rig: Rig, questions: Answers, answers: Answers) -> float:
    """How many of the tokens of the answers are chosen after those before them."""
    same = total = 0
    for question, answer in zip(questions, answers, strict=True):
        chosen = rig.logits([*question, *answer])[len(question) - 1 : -1].argmax(-1)
        same += int((chosen == torch.tensor(answer)).sum())
        total += len(answer)
    return same / total


def same_start(ours: Answers, theirs: Answers) -> float:
    """How many of the tokens come before the first that differs."""
    same = 0
    for answer, wanted in zip(ours, theirs, strict=True):
        pairs = zip(answer, wanted, strict=True)
        same += sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return same / sum(map(len, theirs))


def _measure(repeats: int) -> tuple[list[Speed], list[Accuracy]]:
    rigs = {kind: Rig(kind) for kind in KINDS}
    return speeds(rigs, repeats), accuracies(rigs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.quantised")
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    with settled_thread() as thread:
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
    save("quantised", {"speed": [*map(asdict, fast)], "accuracy": [*map(asdict, exact)]})


if __name__ == "__main__":
    main()
