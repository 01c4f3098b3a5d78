"""How a job is trained: every knob, with what it is if nothing is said."""

import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any

from services.core.errors import FieldViolation, InvalidRequest

MOST_RANK = 256
MOST_TOKENS = 1 << 20

_MODULE = re.compile(r"[A-Za-z0-9_]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """See trainer_service.proto for every field."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    steps: int = 0
    epochs: float = 0.0
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    pack_tokens: int = 1024
    packs_a_step: int = 1
    validation_share: float = 0.0
    evaluate_steps: int = 0
    patience: int = 0
    checkpoint_steps: int = 50
    seed: int = 0
    max_gradient_norm: float = 1.0

    @classmethod
    def asked(cls, **values: Any) -> "TrainingConfig":
        """With what nothing is said of (0 or empty) as it is by default. Raises InvalidRequest."""
        said = {name: value for name, value in values.items() if value}
        if "alpha" not in said:
            said["alpha"] = 2.0 * said.get("rank", cls().rank)
        if "steps" not in said:
            said.setdefault("epochs", 1.0)
        config = replace(cls(), **said)
        config.check()
        return config

    def check(self) -> None:
        """Raises InvalidRequest with everything that is wrong."""
        wrong = [
            FieldViolation(f"config.{name}", "must be a finite number of at least 0")
            for name in (each.name for each in fields(self))
            if isinstance(value := getattr(self, name), int | float)
            and not (math.isfinite(value) and value >= 0)
        ]
        for name, most in (
            ("rank", MOST_RANK), ("pack_tokens", MOST_TOKENS), ("dropout", 0.99),
            ("validation_share", 0.9), ("learning_rate", 1.0), ("epochs", 100),
        ):  # fmt: skip
            if getattr(self, name) > most:
                wrong.append(FieldViolation(f"config.{name}", f"must be at most {most:g}"))
        if self.pack_tokens < 2:
            wrong.append(FieldViolation("config.pack_tokens", "must be at least 2"))
        if self.steps and self.epochs:
            wrong.append(FieldViolation("config.epochs", "does not go with steps"))
        if self.patience and not (self.validation_share and self.evaluate_steps):
            wrong.append(
                FieldViolation("config.patience", "needs validation_share and evaluate_steps")
            )
        wrong += [
            FieldViolation("config.target_modules", f"{name!r} is not a module's short name")
            for name in self.target_modules
            if not _MODULE.fullmatch(name)
        ]
        if wrong:
            raise InvalidRequest(wrong)
