"""How a federated job is done: who takes part, what they exchange, when a round closes."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from services.core.errors import FieldViolation, InvalidRequest

# Not "fedsa": it leaves every site an adapter of its own, and none to publish.
METHODS = (
    "full", "fedit", "slora", "ffa", "flexlora", "flora", "fedex", "primed", "keep-sparse",
    "sparse",
)  # fmt: skip
AVERAGES = ("mean", "median", "trimmed")
MEAN_ALONE = ("flexlora", "flora", "fedex")  # what they put together are not numbers that compare
MOST_PARTICIPANTS = 1000
MOST_ATTEMPTS = 3  # to get enough updates for a round

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
_KEY = re.compile(r"ecdsa-sha2-nistp(256|384|521) [A-Za-z0-9+/=]{100,400}( .*)?")


@dataclass(frozen=True, slots=True)
class Participant:
    """A site: what its SuperNode proves itself by is the other half of `public_key`, a line as
    OpenSSH writes it."""

    name: str
    public_key: str


@dataclass(frozen=True, slots=True)
class TookPart:
    """A participant whose updates are in the result, and what it learnt from."""

    name: str
    data_sha256: str
    rows: int
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """See trainer_service.proto for every field."""

    participants: tuple[Participant, ...]
    method: str = "flexlora"
    rounds: int = 3
    clients_per_round: int = 0
    quorum: int = 0
    deadline_seconds: float = 600.0
    local_steps: int = 10
    batch: int = 4
    density: float = 0.01
    first_rounds: int = 0
    proximal_mu: float = 0.0
    clip_norm: float = 0.0
    noise_multiplier: float = 0.0
    labels: tuple[str, ...] = ()
    norm_bound: float = 0.0
    average: str = "mean"

    @classmethod
    def asked(cls, participants: Sequence[Participant], **values: Any) -> "Federation":
        """With what nothing is said of (0 or empty) as it is by default. Raises InvalidRequest."""
        said = {name: value for name, value in values.items() if value}
        federation = replace(cls(participants=tuple(participants)), **said)
        federation.check()
        many = federation.clients_per_round or len(federation.participants)
        quorum = federation.quorum or many // 2 + 1
        return replace(federation, clients_per_round=many, quorum=quorum)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Federation":
        participants = tuple(Participant(**each) for each in raw["participants"])
        return cls(**raw | {"participants": participants, "labels": tuple(raw["labels"])})

    def check(self) -> None:
        """Raises InvalidRequest with everything that is wrong."""
        wrong = [
            FieldViolation(f"federated.{name}", "must be a finite number of at least 0")
            for name in (each.name for each in fields(self))
            if isinstance(value := getattr(self, name), int | float)
            and not (math.isfinite(value) and value >= 0)
        ]
        many = len(self.participants)
        chosen = self.clients_per_round or many
        for name, most in (
            ("rounds", 1000), ("clients_per_round", many), ("quorum", chosen), ("density", 1.0),
            ("deadline_seconds", 86_400), ("first_rounds", max(0, self.rounds - 1)),
            ("local_steps", 100_000), ("batch", 4096),
        ):  # fmt: skip
            if getattr(self, name) > most:
                wrong.append(FieldViolation(f"federated.{name}", f"must be at most {most:g}"))
        if self.method not in METHODS:
            known = ", ".join(METHODS)
            wrong.append(FieldViolation("federated.method", f"must be one of {known}"))
        if self.noise_multiplier and not self.clip_norm:
            wrong.append(FieldViolation("federated.noise_multiplier", "needs clip_norm"))
        if self.average not in AVERAGES:
            known = ", ".join(AVERAGES)
            wrong.append(FieldViolation("federated.average", f"must be one of {known}"))
        elif self.average != "mean" and (self.method in MEAN_ALONE or self.noise_multiplier):
            what = "noise" if self.noise_multiplier else self.method
            wrong.append(FieldViolation("federated.average", f"{what} takes the mean alone"))
        wrong += _wrong_participants(self.participants)
        if wrong:
            raise InvalidRequest(wrong)


def _wrong_participants(participants: Sequence[Participant]) -> list[FieldViolation]:
    field = "federated.participants"
    wrong = []
    if not 1 <= len(participants) <= MOST_PARTICIPANTS:
        wrong.append(FieldViolation(field, f"name 1 to {MOST_PARTICIPANTS}"))
    for index, each in enumerate(participants):
        if not _NAME.fullmatch(each.name):
            wrong.append(FieldViolation(f"{field}[{index}].name", "1 to 48 of a-z, 0-9 and -"))
        if not _KEY.fullmatch(each.public_key.strip()):
            what = "must be a line as ssh-keygen -t ecdsa writes it into FILE.pub"
            wrong.append(FieldViolation(f"{field}[{index}].public_key", what))
    for what in ("name", "public_key"):
        if len({getattr(each, what).strip() for each in participants}) < len(participants):
            wrong.append(FieldViolation(field, f"two have the same {what}"))
    return wrong
