"""How far from float32 a model with weights of eight bits is; see quantised.py."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from tokenizers import Tokenizer

from bench.quantised_rig import Answers, Rig
from services.gpu_worker.kernels.rounding import Kind

TEXT = Path(__file__).parent.parent / "examples" / "adapters" / "conversations.tsv"
PIECE = 256  # tokens
ANSWER = 48


@dataclass(frozen=True, slots=True)
class Accuracy:
    weights: str
    perplexity: float
    of_float32: float
    same_next_token: float
    same_before_first_difference: float


def perplexity(rig: Rig, pieces: Sequence[Sequence[int]]) -> float:
    losses = [
        torch.nn.functional.cross_entropy(
            rig.logits(piece)[:-1].double(), torch.tensor(piece[1:]), reduction="none"
        )
        for piece in pieces
    ]
    return float(torch.cat(losses).mean().exp())


def accuracies(rigs: Mapping[Kind, Rig]) -> list[Accuracy]:
    tokenizer = Tokenizer.from_str(rigs["float32"].model.card.tokenizer_json.decode())
    with TEXT.open() as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    text = tokenizer.encode("\n".join(f"{x['question']} {x['answer']}" for x in lines)).ids
    pieces = [text[at : at + PIECE] for at in range(0, len(text) - 1, PIECE)]
    questions = [tokenizer.encode(x["question"]).ids for x in lines[::3]]
    wanted = rigs["float32"].answer(questions, ANSWER)
    found = {kind: perplexity(rig, pieces) for kind, rig in rigs.items()}
    return [
        Accuracy(
            kind,
            found[kind],
            found[kind] / found["float32"],
            same_next(rig, questions, wanted),
            same_start(rig.answer(questions, ANSWER), wanted),
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
