"""Adapters compressed together, against what needs no neighbours: python -m bench.compression

On the two example adapters, and once more with those in the FOLDERs beside them, if there are any:
bytes without headers, the relative Frobenius error of a module's update B A, at most (the bound
that a store would report) and on average, and the share of the engine's greedy answers to the
examples' questions that stay as they were. The four in the results are the examples trained again,
each with seeds 1 and 2 on two thirds of the text (random.Random(seed).sample).

Found: joint bases change answers at every size below plain storage, as truncating each adapter
does; eight bits a number halve it and change none. So the store has no tier for joint compression.
It may be worth a second look with hundreds of adapters of one base model: none are at hand, and
made-up ones would decide the answer by how they are made.
"""

import argparse
import csv
import json
import lzma
import statistics
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jinja2
import numpy as np
from safetensors.torch import load
from tokenizers import Tokenizer

from bench.engines import GIBIBYTE, engine_request, prepare
from bench.low_rank import Form, Update, error, forms
from bench.results import save
from bench.workload import Arrival, Held, read_adapter
from services.adapter_store.canonical import CanonicalAdapter, Pair, canonical
from services.cli.demo import EXAMPLES
from services.cli.suite import embedded_model
from services.core.base_model import BaseModel
from services.gpu_worker.model.loading import LoadedModel, load_model

QUESTIONS, TOKENS = 16, 24


@dataclass(frozen=True, slots=True)
class Adapter:
    """`updates` by site; `numbers` as they are stored, without a header."""

    updates: Mapping[str, Update]
    scaling: Mapping[str, float]
    numbers: bytes


@dataclass(frozen=True, slots=True)
class Row:
    adapters: int
    form: str
    of_plain: float
    largest_error: float
    mean_error: float
    same_answers: float


def read(folder: Path, base: BaseModel) -> Adapter:
    data = b"".join(read_adapter(folder, base).pieces())
    tensors = {name: tensor.float().numpy() for name, tensor in load(data).items()}
    header = 8 + int.from_bytes(data[:8], "little")
    scaling = json.loads(json.loads(data[8:header])["__metadata__"]["lorikeet"])["scaling"]
    updates = {site: (tensors[f"{site}.A"], tensors[f"{site}.B"].T) for site in scaling}
    return Adapter(updates, scaling, data[header:])


def questions(base: BaseModel) -> list[tuple[int, ...]]:
    """Of the text that the examples were trained on, as a chat."""
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        base.chat_template
    )
    tokenizer = Tokenizer.from_str(base.tokenizer_json.decode())
    with (EXAMPLES / "conversations.tsv").open() as file:
        asked = [row["question"] for row in csv.DictReader(file, delimiter="\t")]
    chats = [[{"role": "user", "content": question}] for question in asked[:QUESTIONS]]
    texts = [template.render(messages=chat, add_generation_prompt=True) for chat in chats]
    return [tuple(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]


def answers(model: LoadedModel, adapters: Sequence[Adapter]) -> dict[str, list[int]]:
    """Greedy, of every adapter to every question."""
    files = [_canonical(adapter, model.card) for adapter in adapters]
    engine, digests = prepare(model, files, memory_bytes=GIBIBYTE)
    arrivals = [
        Arrival(0.0, question, TOKENS, adapter)
        for question in questions(model.card)
        for adapter in range(len(adapters))
    ]
    given: dict[str, list[int]] = {str(index): [] for index in range(len(arrivals))}
    for index, arrival in enumerate(arrivals):
        engine.submit(engine_request(index, arrival, digests))
    while not (report := engine.step()).is_idle:
        for request, piece in report.pieces:
            given[request] += piece.tokens
    return given


def _canonical(adapter: Adapter, base: BaseModel) -> CanonicalAdapter:
    pairs = {}
    for site, update in adapter.updates.items():
        a, b = (Held(np.ascontiguousarray(matrix, np.float32)) for matrix in update)
        pairs[site] = Pair(a, b, adapter.scaling[site])
    return canonical(pairs, base.fingerprint)


def compressed(adapters: Sequence[Adapter], form: Form) -> tuple[list[Adapter], int, list[float]]:
    """The adapters as they come back, the bytes kept, and the error of every update."""
    changed: list[dict[str, Update]] = [{} for _ in adapters]
    size, errors = 0, []
    for site in sorted({site for adapter in adapters for site in adapter.updates}):
        having = [index for index, adapter in enumerate(adapters) if site in adapter.updates]
        updates = [adapters[index].updates[site] for index in having]
        kept, kept_bytes = form(updates)
        size += kept_bytes
        errors += [error(*pair) for pair in zip(kept, updates, strict=True)]
        for index, update in zip(having, kept, strict=True):
            changed[index][site] = update
    pairs = zip(adapters, changed, strict=True)
    return [replace(adapter, updates=updates) for adapter, updates in pairs], size, errors


def sweep(model: LoadedModel, adapters: Sequence[Adapter]) -> Iterator[Row]:
    plain = b"".join(adapter.numbers for adapter in adapters)
    expected = answers(model, adapters)
    for name, packed in (("zlib", zlib.compress(plain, 9)), ("lzma", lzma.compress(plain))):
        yield Row(len(adapters), name, len(packed) / len(plain), 0.0, 0.0, 1.0)
    rank = max(len(a) for adapter in adapters for a, _ in adapter.updates.values())
    for name, form in forms(len(adapters), rank):
        back, size, errors = compressed(adapters, form)
        given = answers(model, back)
        same = statistics.mean(given[request] == tokens for request, tokens in expected.items())
        mean = statistics.mean(errors)
        yield Row(len(adapters), name, size / len(plain), max(errors), mean, same)


def smallest(rows: Sequence[Row], kind: str) -> str:
    """The smallest form of this kind that changed no answer."""
    unchanged = [row for row in rows if row.same_answers == 1 and row.form.startswith(kind)]
    best = min(unchanged, key=lambda row: row.of_plain, default=None)
    return "none" if best is None else f"{best.form}: {best.of_plain:.3f} of plain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.compression")
    parser.add_argument("folders", metavar="FOLDER", nargs="*", type=Path)
    asked = parser.parse_args()
    model = load_model(embedded_model())
    examples = [EXAMPLES / "pirate", EXAMPLES / "json"]
    rows: list[Row] = []
    found = {}
    for folders in [examples] + ([[*examples, *asked.folders]] if asked.folders else []):
        measured = []
        for row in sweep(model, [read(folder, model.card) for folder in folders]):
            print(row, flush=True)
            measured.append(row)
        rows += measured
        found[f"{len(folders)} adapters"] = {
            "smallest without a changed answer": smallest(measured, ""),
            "smallest joint one without a changed answer": smallest(measured, "JD"),
        }
    save("compression", {"found": found, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
