"""A task in the words of the methods."""

from dataclasses import replace

from services.trainer.federated.config import FederatedConfig
from services.trainer.federated.words import HEAD, Arrays, Kind, Layer, Model, Plan
from services.trainer.task import Base, FederatedTask

FIRST_PART = 4  # of the rounds of a method with two stages the first is one in so many
TRAINED = {Kind.FULL: ("D",), Kind.SPARSE: ("S",), Kind.LORA: ("A", "B")}


def model_of(base: Base) -> Model:
    """What learns: a causal language model has no head that does."""
    return Model(tuple(Layer(path, out, into) for path, out, into in sorted(base.layers)), {})


def adapted(task: FederatedTask) -> Base:
    """With no layers but those that learn."""
    wanted = set(task.config.target_modules)
    layers = [each for each in task.base.layers if each[0].rsplit(".", 1)[-1] in wanted]
    return replace(task.base, layers=tuple(layers))


def config_of(task: FederatedTask) -> FederatedConfig:
    config, federation = task.config, task.federation
    return FederatedConfig(
        rounds=federation.rounds,
        rank=config.rank,
        alpha=config.alpha,
        first_rounds=federation.first_rounds or max(1, federation.rounds // FIRST_PART),
        density=federation.density,
        learning_rate=config.learning_rate,
        steps=federation.local_steps,
        batch=federation.batch,
        proximal_mu=federation.proximal_mu,
        average=federation.average,
        seed=config.seed,
    )


def expected(plan: Plan, sent: Arrays) -> Arrays:
    """Of what was sent, that which is to come back."""
    sides = set(TRAINED[plan.kind]) - ({"A"} if plan.freeze_a else set())
    return {
        name: array
        for name, array in sent.items()
        if name.startswith(HEAD) or name.rsplit(".", 1)[-1] in sides
    }
