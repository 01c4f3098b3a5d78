"""Which updates a round may take: anything else would be in everybody's adapter."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.trainer.federated.averaging import in_order
from services.trainer.federated.words import Arrays, Update


@dataclass(frozen=True, slots=True)
class Limits:
    """`norm`: of how far all arrays of an update together may be from what was sent; 0: any.
    `base`: the fingerprint of the model that is trained; empty: any."""

    norm: float = 0.0
    base: str = ""


def checked(
    updates: Sequence[Update], told: dict[str, tuple[int, Arrays]], limits: Limits
) -> tuple[list[Update], dict[str, str]]:
    """Those that are good, the last of each client, and why others are not, by client. `told`: by
    client the round, and an array of every name that is to come back, as it was sent."""
    good: list[Update] = []
    refused: dict[str, str] = {}
    for update in updates:
        why = "it was not asked"
        if update.client in told:
            why = _wrong(update, *told[update.client], limits)
        if why:
            refused[update.client] = why
        else:
            good.append(update)
    return in_order(good), refused


def is_quorum(good: int, asked: int, quorum: float) -> bool:
    """Whether so many of those asked are enough, one at least."""
    return good >= max(1.0, quorum * asked)


def distance(arrays: Arrays, first: Arrays) -> float:
    """Of all arrays together."""
    squares = (np.sum((arrays[n].astype(np.float64) - first[n]) ** 2) for n in sorted(first))
    return float(np.sqrt(sum(squares)))


def _wrong(update: Update, number: int, first: Arrays, limits: Limits) -> str:
    if update.round != number:
        return f"it is of round {update.round}, not {number}"
    if limits.base and update.base != limits.base:
        return "it is of another base model"
    if update.examples <= 0:
        return "it says that it has no examples"
    if set(update.arrays) != set(first):
        off = sorted(set(update.arrays) ^ set(first))
        return f"{off[0]} is missing, or should not be there"
    damaged = (why for name in sorted(first) if (why := _damaged(name, update.arrays, first)))
    return next(damaged, "") or _far(update.arrays, first, limits)


def _damaged(name: str, arrays: Arrays, first: Arrays) -> str:
    array, wanted = arrays[name], list(first[name].shape)
    if array.dtype != np.float32 or list(array.shape) != wanted:
        return f"{name} is {array.dtype} {list(array.shape)}, not float32 {wanted}"
    return "" if np.isfinite(array).all() else f"{name} has values that are not finite"


def _far(arrays: Arrays, first: Arrays, limits: Limits) -> str:
    far = distance(arrays, first)
    if limits.norm and far > limits.norm:
        return f"it is {far:.3g} from what was sent, more than {limits.norm:.3g}"
    return ""
