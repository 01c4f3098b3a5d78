"""Methods whose result is exactly the mean of what clients add, B A, not of their factors."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from services.trainer.config import MOST_RANK
from services.trainer.federated.averaging import in_order, mean, weights
from services.trainer.federated.factoring import product
from services.trainer.federated.lora import FedIt, factors_of, first_factors
from services.trainer.federated.state import State
from services.trainer.federated.words import HEAD, Array, Factors, Layer, Update

Parts = list[tuple[float, Factors]]


def parts_of(state: State, updates: Sequence[Update], layer: Layer) -> Parts:
    """What each client adds to a layer, with its weight; ranks may differ."""
    there = in_order(updates)
    scaling = state.config.scaling
    each = (factors_of(update.arrays, layer, scaling) for update in there)
    return list(zip(weights(there), each, strict=True))


def mean_head(updates: Sequence[Update]) -> dict[str, Array]:
    heads = [
        replace(each, arrays={n: a for n, a in each.arrays.items() if n.startswith(HEAD)})
        for each in updates
    ]
    return mean(heads)


class FlexLora(FedIt):
    """The mean of B A, then its best factors, in their order (arXiv 2402.11505)."""

    takes_ranks, takes_averages = True, False

    def after(self, state: State, updates: Sequence[Update]) -> State:
        arrays: dict[str, Array] = mean_head(updates)
        most = state.config.most_rank
        for layer in state.model.layers:
            found = product(parts_of(state, updates, layer), most, state.config.scaling)
            arrays |= {f"{layer.name}.A": found.a, f"{layer.name}.B": found.b}
        return state.next(arrays)

    def adapter(self, state: State) -> dict[str, Factors]:
        rank, whole = state.config.rank, super().adapter(state)
        return {name: Factors(f.a[:rank], f.b[:, :rank], f.scaling) for name, f in whole.items()}


class Frozen(FedIt):
    """Beside A and B clients are sent factors that they add and leave as they are: "l.FA", "l.FB",
    whose product needs no scaling. They take the place of what the paper adds to the base, which
    other tenants share."""

    takes_averages = False

    def adapter(self, state: State) -> dict[str, Factors]:
        """The frozen factors as extra rank, or alone where the others add nothing."""
        scaling = state.config.scaling
        found = super().adapter(state)
        for name, own in found.items():
            if f"{name}.FA" in state.arrays:
                used = len(own.a) if own.b.any() else 0
                a = np.concatenate([own.a[:used], state.arrays[f"{name}.FA"]])
                b = np.concatenate([own.b[:, :used], state.arrays[f"{name}.FB"] / scaling], axis=1)
                found[name] = Factors(a, b.astype(np.float32), scaling)
        return found


class Flora(Frozen):
    """Factors are stacked, and every round begins with new ones (arXiv 2409.05976)."""

    takes_ranks = True

    def after(self, state: State, updates: Sequence[Update]) -> State:
        config = state.config
        arrays = first_factors(state.model, config.most_rank, config.seed + state.round + 1)
        arrays |= mean_head(updates)
        for layer in state.model.layers:
            parts = [*_frozen(state, layer), *parts_of(state, updates, layer)]
            arrays |= _as_frozen(layer, parts, _most_rank(layer))
        return state.next(arrays)

    def adapter(self, state: State) -> dict[str, Factors]:
        """The best of it that can be served, once more has been stacked."""
        return {
            name: each
            if len(each.a) <= MOST_RANK
            else product([(1.0, each)], MOST_RANK, each.scaling)
            for name, each in super().adapter(state).items()
        }


class FedEx(Frozen):
    """A and B are averaged, and what that is off the mean of B A is frozen beside them (arXiv
    2410.09432); of it the best of `residual_rank` is kept."""

    def after(self, state: State, updates: Sequence[Update]) -> State:
        arrays: dict[str, Array] = {
            name: array
            for name, array in mean(updates).items()
            if not name.endswith((".FA", ".FB"))
        }
        for layer in state.model.layers:
            averaged = factors_of(arrays, layer, state.config.scaling)
            parts = [*_frozen(state, layer), *parts_of(state, updates, layer), (-1.0, averaged)]
            arrays |= _as_frozen(layer, parts, state.config.residual_rank)
        return state.next(arrays)


def _frozen(state: State, layer: Layer) -> Parts:
    a, b = (state.arrays.get(f"{layer.name}.{side}") for side in ("FA", "FB"))
    return [] if a is None or b is None else [(1.0, Factors(a, b, 1.0))]


def _as_frozen(layer: Layer, parts: Parts, most: int) -> dict[str, Array]:
    """As few factors as give the sum, `most` at most."""
    rank = min(most, _most_rank(layer), sum(len(factors.a) for _, factors in parts))
    found = product(parts, rank, 1.0)
    return {f"{layer.name}.FA": found.a, f"{layer.name}.FB": found.b}


def _most_rank(layer: Layer) -> int:
    return min(layer.rows, layer.columns)
