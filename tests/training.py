"""Small jobs for the trainer, on a small random model."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from services.trainer.config import TrainingConfig
from services.trainer.jobs import DataKind, DataSet
from services.trainer.task import Base, Task
from tests.tiny_models import make_reference, save_reference

CHATML = (
    "{% for message in messages %}w3 {{ message['role'] }} {{ message['content'] }} w1 {% endfor %}"
    "{% if add_generation_prompt %}w3 assistant {% endif %}"
)
WORDS = ["w10 w11 w12", "w20 w21", "w30 w31 w32 w33", "w40", "w50 w51", "w60 w61 w62"]
CONVERSATIONS = [
    {"instruction": f"{words} w{70 + index}", "output": f"w{80 + index} {words}"}
    for index, words in enumerate(WORDS)
]
TARGETS = ("q_proj", "v_proj", "down_proj")
DATA_SET = DataSet("a" * 64, "data.jsonl", 1000, 6, DataKind.INSTRUCTION)


def saved_base(folder: Path) -> Path:
    return save_reference(make_reference("llama"), folder)


def written(path: Path, rows: Iterable[Mapping[str, Any]] = CONVERSATIONS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def base_of(model: Path, **changes: Any) -> Base:
    facts: dict[str, Any] = {
        "name": "tiny",
        "path": model,
        "tokenizer_json": Tokenizer.from_file(str(model / "tokenizer.json")).to_str(),
        "chat_template": CHATML,
        "special_tokens": {},
        "end_tokens": (1,),
        "context_tokens": 256,
    }
    return Base(**facts | changes)


def task_of(
    model: Path, data: Path, *, kind: DataKind = DataKind.INSTRUCTION, **config: Any
) -> Task:
    asked = {
        "rank": 2, "steps": 4, "pack_tokens": 24, "seed": 7, "target_modules": TARGETS,
        "learning_rate": 0.01,
    }  # fmt: skip
    return Task(
        method="lora",
        config=TrainingConfig.asked(**asked | config),
        base=base_of(model),
        data=data,
        data_name=data.name,
        kind=kind,
        folder=data.parent,
        prefix="1-",
    )
