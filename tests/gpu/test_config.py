"""How kernels are launched, by model of GPU: whatever the files say, the numbers are the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from services.gpu_worker.kernels.cuda.config import (
    DEFAULT,
    FOLDER,
    Config,
    Launch,
    config_for,
    path_of,
    read_config,
    write_config,
)
from tests.gpu.test_kernels import Batch, Context

OTHER = Config(
    shrink=Launch(32, 2, 2),
    expand=Launch(16, 1, 1),
    decode=Launch(16, 2, 2),
    prefill=Launch(32, 8, 4),
    multiply=Launch(32, 2, 2),
    parts=3,
    split=48,
    queries=16,
    alone_rows=1000,
    beside=True,
)


def test_adapters_add_the_same_however_they_are_launched() -> None:
    Batch(54, [5, 3], 3_000, [2, 20], torch.float32, OTHER).check("qkv", torch.float32)


def test_attention_sees_the_same_however_it_is_launched() -> None:
    Context([(1, 130), (19, 20)], 4, 2, 16, torch.float32).check(None, OTHER)


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.stem)
def test_every_file_can_be_read_and_is_as_it_would_be_written(path: Path, tmp_path: Path) -> None:
    write_config(tmp_path / path.name, read_config(path))
    assert (tmp_path / path.name).read_text() == path.read_text()


def test_where_no_gpu_was_measured_the_default_is_used() -> None:
    assert config_for(torch.device("cpu")) == read_config(FOLDER / f"{DEFAULT}.json")
    assert path_of("NVIDIA H200") == FOLDER / "NVIDIA_H200.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shrink": {"block": 100, "warps": 4, "stages": 3}}, "power of two"),
        ({"expand": {"block": 64, "warps": 3, "stages": 3}}, "warps"),
        ({"decode": {"block": 64, "warps": 4}}, "stages"),
        ({"split": 100}, "multiple of decode's block"),
        ({"queries": 8}, "queries"),
        ({"parts": 0}, "parts"),
        ({"beside": 1}, "beside"),
        ({"colour": 3}, "colour"),
    ],
)
def test_what_no_kernel_can_run_with_is_refused_by_name(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    plain = json.loads((FOLDER / f"{DEFAULT}.json").read_text())
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(plain | change))
    with pytest.raises(ValueError, match=rf"mine\.json is no configuration of kernels: .*{said}"):
        read_config(path)
