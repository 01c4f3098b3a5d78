"""What a site does with its own rows, and which rows it refuses."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.core.errors import FailedPrecondition, InvalidRequest
from services.trainer.federated.config import FederatedConfig
from services.trainer.federated.lora import FedIt
from services.trainer.flower.meaning import model_of
from services.trainer.flower.site import Site, work
from services.trainer.flower.sites import Brief, Order
from services.trainer.training.locally import batches
from tests.training import CONVERSATIONS, TARGETS, base_of, saved_base, written

CONFIG = FederatedConfig(rank=2, steps=3, batch=2, learning_rate=0.05)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_base(tmp_path_factory.mktemp("base") / "tiny")


def _brief(base: Path, **changes: Any) -> Brief:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model: Any = AutoModelForCausalLM.from_pretrained(base)
    layers = tuple(
        (name, each.out_features, each.in_features)
        for name, each in model.named_modules()
        if isinstance(each, torch.nn.Linear) and name.rsplit(".", 1)[-1] in TARGETS
    )
    return Brief(base_of(base, fingerprint="f", layers=layers), 64, 7, **changes)


def _order(brief: Brief) -> Order:
    method = FedIt()
    return Order("east", 1, 0, *method.told(method.begin(model_of(brief.base), CONFIG), "east"))


def _site(base: Path, data: Path) -> Site:
    return Site("east", data, base, "f", threads=1)


def test_it_learns_from_its_rows_and_says_which(base: Path, tmp_path: Path) -> None:
    brief, data = _brief(base), written(tmp_path / "rows.jsonl")
    order = _order(brief)
    answer = work(_site(base, data), order, brief)
    assert answer.arrays.keys() == order.arrays.keys()
    moved = [n for n, a in answer.arrays.items() if not np.array_equal(a, order.arrays[n])]
    assert any(name.endswith(".B") for name in moved)
    assert (answer.examples, answer.rows) == (len(CONVERSATIONS), len(CONVERSATIONS))
    assert answer.data_sha256 == hashlib.sha256(data.read_bytes()).hexdigest()
    assert answer.metrics["steps"] == 3
    again = work(_site(base, data), order, brief)
    assert all(np.array_equal(answer.arrays[n], again.arrays[n]) for n in answer.arrays)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "rows.jsonl: is empty"),
        ("\n\n", "rows.jsonl: has no rows"),
        ('{"text": "a"}\n{"txt": "b"}\n', "rows.jsonl:2: 'text' is missing"),
        ('{"words": "a"}\n', "rows.jsonl:1: has 'words'; it must have"),
        ('{"text": "a"}\nnot json\n', "rows.jsonl:2: is not JSON"),
        ('{"text": "w1", "label": "c"}\n', "rows.jsonl:1: the label 'c' is none of 'a', 'b'"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(
    base: Path, tmp_path: Path, content: str, said: str
) -> None:
    brief, data = _brief(base, labels=("a", "b")), tmp_path / "rows.jsonl"
    data.write_text(content)
    with pytest.raises(InvalidRequest, match=r"^data: " + said.replace("(", r"\(")):
        work(_site(base, data), _order(brief), brief)


def test_a_row_that_is_too_long_is_named(base: Path, tmp_path: Path) -> None:
    brief = replace(_brief(base), pack_tokens=6)
    with pytest.raises(InvalidRequest, match=r"rows.jsonl:1: has \d+ tokens, more than the 6"):
        work(_site(base, written(tmp_path / "rows.jsonl")), _order(brief), brief)


def test_a_loss_that_is_no_number_is_said(base: Path, tmp_path: Path) -> None:
    brief, data = _brief(base), written(tmp_path / "rows.jsonl")
    order = _order(brief)
    spoilt = {name: np.full_like(array, np.nan) for name, array in order.arrays.items()}
    with pytest.raises(InvalidRequest, match=r"rows.jsonl: the loss is nan in step 1 of round 1"):
        work(_site(base, data), replace(order, arrays=spoilt), brief)


def test_another_base_or_another_name_is_refused(base: Path, tmp_path: Path) -> None:
    brief, site = _brief(base), _site(base, written(tmp_path / "rows.jsonl"))
    with pytest.raises(FailedPrecondition, match="its base model is not the tiny"):
        work(replace(site, fingerprint="another"), _order(brief), brief)
    with pytest.raises(FailedPrecondition, match="this is west, not east"):
        work(replace(site, name="west"), _order(brief), brief)


def test_every_row_is_seen_before_one_is_seen_again() -> None:
    every: Any = list(range(5))
    steps: Any = batches(every, 2, "seed")
    seen = [each for _ in range(3) for each in next(steps)]
    assert sorted(seen) == every
    assert json.dumps([next(steps) for _ in range(3)]) != json.dumps([[0, 1], [2, 3], [4]])
