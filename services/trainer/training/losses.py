"""What a causal language model says to packs of examples."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from services.trainer.training.encoding import Encoded


def losses_of(model: Any, pack: Sequence[Encoded], device: torch.device) -> tuple[Tensor, Tensor]:
    """Of every token that is to be predicted: its loss in nats, and its example's place in the
    pack. Positions begin anew with each example, and none attends to another."""
    tokens = [token for each in pack for token in each.tokens]
    positions = [position for each in pack for position in range(len(each.tokens))]
    predicted: list[int] = []
    owners: list[int] = []
    start = 0
    for place, each in enumerate(pack):
        predicted += range(start + each.learnt, start + len(each.tokens))
        owners += [place] * each.targets
        start += len(each.tokens)

    def row(values: Sequence[int]) -> Tensor:
        return torch.tensor([values], dtype=torch.long, device=device)

    ids, targets = row(tokens), row(predicted)[0]
    logits = model(
        input_ids=ids, position_ids=row(positions), use_cache=False, logits_to_keep=targets - 1
    ).logits[0]
    losses = functional.cross_entropy(logits.float(), ids[0, targets], reduction="none")
    return losses, row(owners)[0]
