"""One participant's steps of a round, on the base model."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.trainer.examples import Example
from services.trainer.federated import Arrays, Plan
from services.trainer.federated.local import train
from services.trainer.flower.meaning import model_of
from services.trainer.flower.sites import Brief
from services.trainer.training.encoding import Encoded, Encoder
from services.trainer.training.loading import load_weights
from services.trainer.training.losses import losses_of

Batch = Callable[[Any], Tensor]
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
    seed: str,
) -> tuple[Arrays, dict[str, float]]:
    """Raises InvalidRequest that names file and line of what cannot be learnt."""
    encoder = Encoder(brief.base, name=data, most_tokens=brief.pack_tokens)
    encoded = encoder.encode_all(examples)
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(plan.seed)
    model = load_weights(base, CPU)
    steps = batches(encoded, plan, seed)
    found, _, metrics = train(model, model_of(brief.base), plan, arrays, steps)
    return found, metrics


def batches(encoded: Sequence[Encoded], plan: Plan, seed: str) -> Iterator[Batch]:
    """Without end: pass after pass, each in an order of its own, which the seed decides."""
    chance = random.Random(seed)
    while True:
        order = chance.sample(list(encoded), len(encoded))
        for start in range(0, len(order), plan.batch):
            yield _batch(order[start : start + plan.batch])


def _batch(pack: Sequence[Encoded]) -> Batch:
    def loss(model: Any) -> Tensor:
        return losses_of(model, pack, CPU)[0].mean()

    return loss
