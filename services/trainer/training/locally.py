"""One participant's steps of a round, on the base model."""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from services.core.errors import InvalidRequest
from services.trainer.examples import Example, bad
from services.trainer.federated.local.training import train
from services.trainer.federated.words import Arrays, Plan
from services.trainer.flower.meaning import model_of
from services.trainer.flower.sites import Brief
from services.trainer.training.encoding import Encoded, Encoder
from services.trainer.training.loading import load_weights
from services.trainer.training.losses import losses_of

CPU = torch.device("cpu")


def learn(
    plan: Plan,
    arrays: Arrays,
    examples: Sequence[Example],
    brief: Brief,
    *,
    base: Path,
    data: str,
    threads: int,
    round_number: int,
) -> tuple[Arrays, Mapping[str, float]]:
    """Raises InvalidRequest that names file and line of what cannot be learnt."""
    seed = f"{brief.seed}/{round_number}/{data}"
    encoder = Encoder(brief.base, name=data, most_tokens=brief.pack_tokens)
    encoded = encoder.encode_all(examples)
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(plan.seed)
    model = load_weights(base, CPU)
    try:
        done = train(
            model,
            model_of(brief.base),
            plan,
            arrays,
            batches(encoded, plan.batch, seed),
            loss_of=lambda batch: losses_of(model, batch, CPU)[0].mean(),
        )
    except InvalidRequest as error:  # of the loss, which knows no file
        what = error.violations[0].description
        raise bad(data, 0, f"{what} of round {round_number}") from error
    return done.arrays, done.metrics


def batches(encoded: Sequence[Encoded], size: int, seed: str) -> Iterator[Sequence[Encoded]]:
    """Without end: pass after pass, each in an order of its own, which the seed decides."""
    chance = random.Random(seed)
    while True:
        order = chance.sample(list(encoded), len(encoded))
        for start in range(0, len(order), size):
            yield order[start : start + size]
