"""What a worker may take on."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of a worker, all at least 1, and what it does about waiting. Raises ValueError."""

    max_step_tokens: int = 512
    max_sequences: int = 64
    max_waiting: int = 1024
    page_tokens: int = 16
    patience_steps: int = 512
    """A request that has waited for so long is overtaken no more."""
    watermark: float = 0.01
    """Share of all pages that is left to running sequences, in case they come to more than was
    expected: nothing starts and no adapter loads on them while anything runs. Below 1."""
    clustered_adapters: int = 0
    """While so many adapters run, only requests of these are admitted, until the patience of
    others ends (S-LoRA's adapter clustering, arXiv 2311.03285, section 4.1). 0: no clustering."""
    first_token_seconds: float = 0
    """For requests that do not say how long they can wait for their first token. 0: for ever."""
    early_abort: bool = True
    """Whether requests that are predicted to miss their first token are refused at once."""

    def __post_init__(self) -> None:
        for name in ("max_step_tokens", "max_sequences", "max_waiting", "page_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("patience_steps", "clustered_adapters", "first_token_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0")
        if not 0 <= self.watermark < 1:
            raise ValueError("watermark must be at least 0 and below 1")
