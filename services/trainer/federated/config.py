"""How a federation trains: every knob, with what it is if nothing is said."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.core.errors import InvalidRequest
from services.trainer.federated.averaging import AVERAGES


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
        if self.average not in AVERAGES:
            raise InvalidRequest.of("config.average", f"must be one of {', '.join(AVERAGES)}")

    def check(self, *, ranks: bool, averages: bool) -> None:
        """For a method that knows what to do with several ranks, and with other averages than the
        mean, or does not. Raises InvalidRequest."""
        if not ranks and any(rank != self.rank for rank in self.ranks.values()):
            raise InvalidRequest.of("config.ranks", "this method needs all clients to have one")
        if not averages and self.average != "mean":
            raise InvalidRequest.of("config.average", "this method takes the mean alone")

    @property
    def scaling(self) -> float:
        """Of B A, for every client: alpha goes with its rank."""
        return self.alpha / self.rank

    @property
    def most_rank(self) -> int:
        return max(self.rank, *self.ranks.values(), 1)

    def rank_of(self, client: str) -> int:
        return self.ranks.get(client, self.rank)
