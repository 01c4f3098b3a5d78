"""Methods that train weights themselves, or begin so: SLoRA (arXiv 2308.06522) and those it is
compared with."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from services.trainer.federated.averaging import AVERAGES
from services.trainer.federated.config import FederatedConfig
from services.trainer.federated.factoring import energy, energy_of_noise, factored
from services.trainer.federated.lora import FedIt, first_factors, lora_plan
from services.trainer.federated.masks import chosen, mask, spread
from services.trainer.federated.state import State
from services.trainer.federated.words import (
    Array,
    Arrays,
    Factors,
    Kind,
    Layer,
    Model,
    Plan,
    Update,
)


class Full:
    """FedAvg of all weights; published as its best factors."""

    kind = Kind.FULL

    def begin(self, model: Model, config: FederatedConfig) -> State:
        config.check(ranks=False, averages=True)
        arrays = {f"{e.name}.D": np.zeros((e.rows, e.columns), np.float32) for e in model.layers}
        return State(model, config, {**arrays, **model.head})

    def told(self, state: State, client: str) -> tuple[Plan, Arrays]:
        return _first_plan(state.config, self.kind), state.arrays

    def after(self, state: State, updates: Sequence[Update]) -> State:
        return state.next({**state.arrays, **AVERAGES[state.config.average](updates)})

    def adapter(self, state: State) -> dict[str, Factors]:
        """What `energy` of it that keeps is for whoever publishes to say."""
        rank, scaling = state.config.rank, state.config.scaling
        return {e.name: factored(self.delta(state, e), rank, scaling) for e in state.model.layers}

    def delta(self, state: State, layer: Layer) -> Array:
        return state.arrays[f"{layer.name}.D"]


class Sparse(Full):
    """Of every matrix a fixed part at random; only its values travel."""

    kind = Kind.SPARSE

    def begin(self, model: Model, config: FederatedConfig) -> State:
        config.check(ranks=False, averages=True)
        arrays = {
            f"{e.name}.S": np.zeros(chosen(e, config.density), np.float32) for e in model.layers
        }
        return State(model, config, {**arrays, **model.head})

    def delta(self, state: State, layer: Layer) -> Array:
        positions = mask(layer, state.config.density, state.config.seed)
        return spread(state.arrays[f"{layer.name}.S"], layer, positions)


class Switched(FedIt):
    """`first` for some rounds, then LoRA from the factors of what that came to; the base is as it
    was. `facts` say how much of it the factors keep, and would of noise."""

    def __init__(self, first: Full) -> None:
        self._first = first

    def begin(self, model: Model, config: FederatedConfig) -> State:
        if config.first_rounds == 0:
            return super().begin(model, config)
        return self._first.begin(model, config)

    def told(self, state: State, client: str) -> tuple[Plan, Arrays]:
        if self.is_first(state):
            return self._first.told(state, client)
        rank = state.config.switch_rank or state.config.rank
        plan = replace(lora_plan(state.config), rank=rank, alpha=state.config.scaling * rank)
        return plan, state.arrays

    def after(self, state: State, updates: Sequence[Update]) -> State:
        if not self.is_first(state):
            return super().after(state, updates)
        done = self._first.after(state, updates)
        return self.switch(done) if not self.is_first(done) else done

    def adapter(self, state: State) -> dict[str, Factors]:
        """Of the serving rank, though the switch may have had another."""
        if self.is_first(state):
            return self._first.adapter(state)
        found, rank = super().adapter(state), state.config.rank
        return {
            name: each if len(each.a) <= rank else factored(each.delta, rank, each.scaling)
            for name, each in found.items()
        }

    def is_first(self, state: State) -> bool:
        return state.round < state.config.first_rounds

    def switch(self, state: State) -> State:
        config, arrays = state.config, dict(state.of_head())
        rank, kept, noise = config.switch_rank or config.rank, [], []
        for layer in state.model.layers:
            delta = self._first.delta(state, layer)
            found = factored(delta, rank, config.scaling)
            arrays |= {f"{layer.name}.A": found.a, f"{layer.name}.B": found.b}
            kept.append(energy(delta, rank))
            noise.append(energy_of_noise(delta, rank, config.seed))
        facts = {"svd_energy": float(np.mean(kept)), "svd_energy_of_noise": float(np.mean(noise))}
        return replace(state, arrays=arrays, facts={**state.facts, **facts})


class KeepSparse(Switched):
    """The sparse part stays beside the factors, which begin at nothing: no SVD loses any of it."""

    def __init__(self) -> None:
        super().__init__(Sparse())

    def switch(self, state: State) -> State:
        first = first_factors(state.model, state.config.rank, state.config.seed)
        return replace(state, arrays={**state.arrays, **first})

    def told(self, state: State, client: str) -> tuple[Plan, Arrays]:
        return self._first.told(state, client) if self.is_first(state) else _lora(state)

    def adapter(self, state: State) -> dict[str, Factors]:
        """The best factors of both together."""
        if self.is_first(state):
            return self._first.adapter(state)
        own, rank = FedIt.adapter(self, state), state.config.rank
        return {
            e.name: factored(
                self._first.delta(state, e) + own[e.name].delta, rank, state.config.scaling
            )
            for e in state.model.layers
        }


def _lora(state: State) -> tuple[Plan, Arrays]:
    return lora_plan(state.config), state.arrays


def _first_plan(config: FederatedConfig, kind: Kind) -> Plan:
    rate = config.first_learning_rate
    return replace(lora_plan(config), kind=kind, rank=0, alpha=0.0, learning_rate=rate)
