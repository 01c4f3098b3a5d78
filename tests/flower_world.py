"""Federated jobs on small models, driven as the trainer does it."""

import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from services.trainer.process import FEDERATED_COMMAND
from services.trainer.task import FederatedTask, News, news_from_json


def layers_of(base: Path) -> tuple[tuple[str, int, int], ...]:
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    return tuple(
        (name, each.out_features, each.in_features)
        for name, each in model.named_modules()
        if isinstance(each, torch.nn.Linear) and name != "lm_head"
    )


def driven(task: FederatedTask) -> Generator[News, None, None]:
    """Nobody drives it any more once the generator is closed."""
    process = subprocess.Popen(
        FEDERATED_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(task.to_json().encode() + b"\n")
        process.stdin.flush()
        for line in process.stdout:
            yield news_from_json(line)
    finally:
        process.stdin.close()  # as when the trainer is killed
        process.wait()
        process.stdout.close()
