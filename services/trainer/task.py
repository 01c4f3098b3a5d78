"""What a training process is told, and what it tells: lines of JSON over its standard streams."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from services.trainer.config import TrainingConfig
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
        raw = asdict(self)
        return json.dumps(raw, default=lambda value: getattr(value, "value", None) or str(value))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        raw: dict[str, Any] = json.loads(text)
        base, config = raw.pop("base"), raw.pop("config")
        base |= {"path": Path(base["path"]), "end_tokens": tuple(base["end_tokens"])}
        config["target_modules"] = tuple(config["target_modules"])
        raw |= {name: Path(raw[name]) for name in ("data", "folder")}
        raw["kind"] = DataKind(raw["kind"])
        return cls(base=Base(**base), config=TrainingConfig(**config), **raw)


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
