"""What a client does in a round."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn

from services.core.errors import InvalidRequest
from services.trainer.federated.local.adapted import adapted
from services.trainer.federated.words import HEAD, Array, Arrays, Model, Plan

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Trained:
    """`arrays` travel; `kept` stays with the client and is given to it in its next round."""

    arrays: Arrays
    kept: Arrays = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def train(
    module: nn.Module,
    model: Model,
    plan: Plan,
    arrays: Arrays,
    batches: Iterable[Batch],
    *,
    loss_of: Callable[[Batch], Tensor],
) -> Trained:
    """Up to `plan.steps` batches, with optimiser state that begins anew (as FedIT has it) and
    without weight decay. `arrays`: what was sent, and what was kept. The module is afterwards byte
    for byte as it was. Raises InvalidRequest if the loss is not finite or there is no batch."""
    with adapted(module, model, plan, arrays) as learning:
        parameters = list(learning.values())
        first = [each.detach().clone() for each in parameters]
        optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=0.0)
        losses: list[float] = []
        for batch in islice(batches, plan.steps):
            loss = loss_of(batch)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise InvalidRequest.of("data", f"the loss is {losses[-1]} in step {len(losses)}")
            optimizer.zero_grad()
            torch.autograd.backward(loss + _proximal(plan, parameters, first))
            optimizer.step()
        if not losses:
            raise InvalidRequest.of("data", "there is nothing to train on")
        after = {name: _numpy(parameter) for name, parameter in learning.items()}
    stays = {name for name in after if plan.keep_b and _is_own(name)}
    return Trained(
        {name: after[name] for name in sorted(after) if name not in stays},
        {name: after[name] for name in sorted(stays)},
        {"loss": sum(losses) / len(losses), "last_loss": losses[-1], "steps": float(len(losses))},
    )


def _proximal(plan: Plan, parameters: list[nn.Parameter], first: list[Tensor]) -> Tensor | float:
    """FedProx (arXiv 1812.06127): mu / 2 of the squared distance from what the server sent."""
    if not plan.proximal_mu:
        return 0.0
    squares = [((now - then) ** 2).sum() for now, then in zip(parameters, first, strict=True)]
    return plan.proximal_mu / 2 * torch.stack(squares).sum()


def _is_own(name: str) -> bool:
    return name.endswith(".B") or name.startswith(HEAD)


def _numpy(parameter: nn.Parameter) -> Array:
    return parameter.detach().to("cpu", torch.float32).numpy().copy()
