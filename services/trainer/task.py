"""What a training process is told, and what it tells: lines of JSON over its standard streams."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from services.trainer.config import TrainingConfig
from services.trainer.federation import Federation
from services.trainer.jobs import Checkpoint, DataKind, Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Of a base model, what training on it takes: its files, and what the gateway tokenises by."""

    name: str
    path: Path
    tokenizer_json: str = field(repr=False)
    chat_template: str
    special_tokens: dict[str, str]
    end_tokens: tuple[int, ...]
    context_tokens: int
    fingerprint: str = ""
    layers: tuple[tuple[str, int, int], ...] = ()  # that adapters may change: path, out, in

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Base":
        layers = tuple((str(path), int(out), int(into)) for path, out, into in raw["layers"])
        path, ends = Path(raw["path"]), tuple(raw["end_tokens"])
        return cls(**raw | {"path": path, "end_tokens": ends, "layers": layers})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`folder`: the job's own; `prefix`: what its files there begin with, nobody else's do.
    `checkpoint`: the file to go on from, in that folder; empty to begin."""

    method: str
    config: TrainingConfig
    base: Base
    data: Path
    data_name: str
    kind: DataKind
    folder: Path
    prefix: str
    checkpoint: str = ""
    device: str = "auto"
    threads: int = 0

    def to_json(self) -> str:
        return _written(self)

    @classmethod
    def from_json(cls, text: str) -> "Task":
        raw: dict[str, Any] = json.loads(text)
        base, config = raw.pop("base"), raw.pop("config")
        raw |= {name: Path(raw[name]) for name in ("data", "folder")}
        raw["kind"] = DataKind(raw["kind"])
        return cls(base=Base.from_json(base), config=_config(config), **raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where SuperNodes dial in: `address` as they know it, `folder` of certificates, and Flower's
    own environment."""

    address: str
    folder: Path
    flower: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedTask:
    """As Task, for a federated job: its checkpoints are of rounds."""

    config: TrainingConfig
    federation: Federation
    meeting: Meeting
    base: Base
    folder: Path
    prefix: str
    checkpoint: str = ""

    def to_json(self) -> str:
        return _written(self)

    @classmethod
    def from_json(cls, text: str) -> "FederatedTask":
        raw: dict[str, Any] = json.loads(text)
        meeting = {name: Path(value) for name, value in raw["meeting"].items()}
        return cls(
            config=_config(raw["config"]),
            federation=Federation.from_json(raw["federation"]),
            meeting=Meeting(**meeting | {"address": raw["meeting"]["address"]}),
            base=Base.from_json(raw["base"]),
            folder=Path(raw["folder"]),
            prefix=raw["prefix"],
            checkpoint=raw["checkpoint"],
        )


def _written(task: Task | FederatedTask) -> str:
    raw = asdict(task)
    return json.dumps(raw, default=lambda value: getattr(value, "value", None) or str(value))


def _config(raw: dict[str, Any]) -> TrainingConfig:
    return TrainingConfig(**raw | {"target_modules": tuple(raw["target_modules"])})


@dataclass(frozen=True, slots=True)
class Refused:
    """The job can never go well, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Trained:
    """It is done: `result` is a PEFT folder."""

    result: Checkpoint
    metrics: dict[str, float]


News = Point | Checkpoint | Refused | Trained

_KINDS: dict[str, type[News]] = {
    kind.__name__: kind for kind in (Point, Checkpoint, Refused, Trained)
}


def news_to_json(news: News) -> str:
    return json.dumps({"is": type(news).__name__, **asdict(news)})


def news_from_json(text: bytes) -> News:
    raw: dict[str, Any] = json.loads(text)
    kind = _KINDS[raw.pop("is")]
    if kind is Trained:
        raw["result"] = Checkpoint(**raw["result"])
    return kind(**raw)
