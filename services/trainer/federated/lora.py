"""Methods in which A and B are averaged as they are."""

import hashlib
from collections.abc import Sequence

import numpy as np

from services.trainer.federated.averaging import AVERAGES
from services.trainer.federated.config import FederatedConfig
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


def first_a(layer: Layer, rank: int, seed: int) -> Array:
    """Uniform in +-1/sqrt(columns), as PEFT begins; everybody can make it from the seed."""
    number = int.from_bytes(
        hashlib.sha256(f"a {seed} {layer.name}".encode()).digest()[:8], "little"
    )
    draw = np.random.Generator(np.random.Philox(number))
    bound = layer.columns**-0.5
    return draw.uniform(-bound, bound, (rank, layer.columns)).astype(np.float32)


def first_factors(model: Model, rank: int, seed: int) -> dict[str, Array]:
    """A at random and B = 0: nothing is added."""
    arrays: dict[str, Array] = {}
    for layer in model.layers:
        arrays[f"{layer.name}.A"] = first_a(layer, rank, seed)
        arrays[f"{layer.name}.B"] = np.zeros((layer.rows, rank), np.float32)
    return arrays


def factors_of(arrays: Arrays, layer: Layer, scaling: float) -> Factors:
    return Factors(arrays[f"{layer.name}.A"], arrays[f"{layer.name}.B"], scaling)


def lora_plan(config: FederatedConfig, client: str = "") -> Plan:
    rank = config.rank_of(client)
    return Plan(
        kind=Kind.LORA,
        rank=rank,
        alpha=config.scaling * rank,
        seed=config.seed,
        density=config.density,
        proximal_mu=config.proximal_mu,
        learning_rate=config.learning_rate,
        steps=config.steps,
        batch=config.batch,
    )


class FedIt:
    """FedAvg of A and of B (arXiv 2305.05644). mean(B) mean(A) is not mean(B A)."""

    takes_ranks, takes_averages = False, True

    def begin(self, model: Model, config: FederatedConfig) -> State:
        config.check(ranks=self.takes_ranks, averages=self.takes_averages)
        first = first_factors(model, config.most_rank, config.seed)
        return State(model, config, {**first, **model.head})

    def told(self, state: State, client: str) -> tuple[Plan, Arrays]:
        """A client of a lower rank gets the first of the factors."""
        plan = lora_plan(state.config, client)
        return plan, {name: _first(name, a, plan.rank) for name, a in state.arrays.items()}

    def after(self, state: State, updates: Sequence[Update]) -> State:
        average = AVERAGES[state.config.average](updates)
        return state.next({**state.arrays, **average})

    def adapter(self, state: State) -> dict[str, Factors]:
        scaling = state.config.scaling
        return {e.name: factors_of(state.arrays, e, scaling) for e in state.model.layers}


def _first(name: str, array: Array, rank: int) -> Array:
    if name.endswith(".A"):
        return array[:rank]
    return array[:, :rank] if name.endswith(".B") else array
