"""Where a federation stands after a round, and as a file: whoever goes on gets the same bytes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from services.trainer.federated.config import FederatedConfig
from services.trainer.federated.words import HEAD, Arrays, Layer, Model


@dataclass(frozen=True, slots=True)
class State:
    """`round`: rounds that are done; `arrays`: what all clients share; `facts`: what was measured
    on the way, as the energy that a switch kept."""

    model: Model
    config: FederatedConfig
    arrays: Arrays
    round: int = 0
    facts: Mapping[str, float] = field(default_factory=dict)

    def next(self, arrays: Arrays, **facts: float) -> "State":
        """After one round more."""
        return replace(self, arrays=arrays, round=self.round + 1, facts={**self.facts, **facts})

    def of_head(self) -> Arrays:
        return {name: array for name, array in self.arrays.items() if name.startswith(HEAD)}

    def save(self, path: Path) -> None:
        """All but the head's first values, which `arrays` has taken the place of."""
        about = {
            "layers": [asdict(layer) for layer in self.model.layers],
            "config": asdict(self.config),
            "round": self.round,
            "facts": dict(self.facts),
        }
        arrays = {name: self.arrays[name] for name in sorted(self.arrays)}
        save_file(arrays, path, {"federated": json.dumps(about, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "State":
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["federated"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        head = {name: array for name, array in arrays.items() if name.startswith(HEAD)}
        layers = tuple(Layer(**each) for each in about["layers"])
        config = FederatedConfig(**about["config"])
        return cls(Model(layers, head), config, arrays, about["round"], about["facts"])
