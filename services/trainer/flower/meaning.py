"""A task in the words of the methods."""

from dataclasses import replace

from services.trainer.federated import FederatedConfig, Layer, Model
from services.trainer.task import Base, FederatedTask


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
        rank=config.rank,
        alpha=config.alpha,
        seed=config.seed,
        learning_rate=config.learning_rate,
        steps=federation.local_steps,
        batch=federation.batch,
    )
