"""How a federation trains: every knob, with what it is if nothing is said."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedConfig:
    """`ranks`: of clients whose rank is another. `first_rounds`: of the first stage, where there is
    one; `first_learning_rate`: in it. `switch_rank`: of the factors that it ends with, `rank` if
    0. `residual_rank`: of what a published adapter keeps beyond its own rank. `density`: of masks.
    Raises InvalidRequest."""

    rounds: int = 20
    rank: int = 8
    alpha: float = 16.0
    ranks: Mapping[str, int] = field(default_factory=dict)
    first_rounds: int = 5
    first_learning_rate: float = 3e-3
    switch_rank: int = 0
    residual_rank: int = 8
    density: float = 0.01
    learning_rate: float = 1e-3
    steps: int = 10
    batch: int = 16
    proximal_mu: float = 0.0
    average: str = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"rounds": 1, "rank": 1, "steps": 1, "batch": 1, "first_rounds": 0}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise InvalidRequest.of(f"config.{name}", f"must be at least {number}")
        if not 0 < self.density <= 1:
            raise InvalidRequest.of("config.density", "must be above 0 and at most 1")
        if self.alpha <= 0 or min(self.ranks.values(), default=1) < 1:
            raise InvalidRequest.of("config.alpha", "alpha and every rank must be above 0")

    @property
    def scaling(self) -> float:
        """Of B A, for every client: alpha goes with its rank."""
        return self.alpha / self.rank

    def rank_of(self, client: str) -> int:
        return self.ranks.get(client, self.rank)
