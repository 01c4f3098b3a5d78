"""What may be asked of a federation, and what is kept of it."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import InvalidRequest
from services.core.types import TenantId
from services.trainer.config import TrainingConfig
from services.trainer.federated.averaging import AVERAGES as KNOWN_AVERAGES
from services.trainer.federated.methods import METHODS as ALL
from services.trainer.federation import (
    AVERAGES,
    MEAN_ALONE,
    METHODS,
    Federation,
    Participant,
)
from services.trainer.flower.meaning import adapted, config_of, model_of
from services.trainer.jobs import Wish
from services.trainer.task import FederatedTask
from tests.federations import federated_task, federation, participants


def test_defaults_are_filled_in() -> None:
    asked = Federation.asked(participants())
    assert (asked.method, asked.rounds, asked.clients_per_round, asked.quorum) == (
        "flexlora", 3, 3, 2,
    )  # fmt: skip
    assert Federation.asked(participants(), clients_per_round=2).quorum == 2
    assert Federation.asked(participants(("a",))).quorum == 1


def test_every_method_that_has_one_adapter_can_be_asked_for() -> None:
    assert set(METHODS) == set(ALL) - {"fedsa"}


@pytest.mark.parametrize("method", METHODS)
def test_a_job_and_its_method_agree_on_what_is_averaged(method: str, tmp_path: Path) -> None:
    assert set(AVERAGES) == set(KNOWN_AVERAGES)
    task = federated_task(tmp_path, method="fedit", average="median")
    begin = partial(ALL[method]().begin, model_of(adapted(task)), config_of(task))
    if method in MEAN_ALONE:
        with pytest.raises(InvalidRequest, match="mean alone"):
            begin()
    else:
        begin()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"method": "fedsa"}, "federated.method"),
        ({"clients_per_round": 4}, "federated.clients_per_round"),
        ({"clients_per_round": 2, "quorum": 3}, "federated.quorum"),
        ({"rounds": 3, "first_rounds": 3}, "federated.first_rounds"),
        ({"noise_multiplier": 1.0}, "federated.noise_multiplier"),
        ({"clip_norm": float("nan")}, "federated.clip_norm"),
        ({"norm_bound": -1.0}, "federated.norm_bound"),
        ({"average": "mode"}, "federated.average"),
        ({"average": "median"}, "federated.average"),  # flexlora
        (
            {"method": "fedit", "average": "median", "clip_norm": 1.0, "noise_multiplier": 1.0},
            "federated.average",
        ),
        ({"deadline_seconds": -1.0}, "federated.deadline_seconds"),
    ],
)
def test_what_cannot_be_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        Federation.asked(participants(), **values)
    assert [each.field for each in error.value.violations] == [field]


def test_participants_are_different_and_have_keys() -> None:
    (one,) = participants(("a",))
    with pytest.raises(InvalidRequest, match="two have the same public_key"):
        Federation.asked([one, replace(one, name="b")])
    with pytest.raises(InvalidRequest, match="two have the same name"):
        Federation.asked([one, *participants(("b",)), replace(participants(("c",))[0], name="a")])
    with pytest.raises(InvalidRequest, match=r"participants\[0\].public_key: must be a line"):
        Federation.asked([Participant("a", "ssh-ed25519 AAAA")])
    with pytest.raises(InvalidRequest, match="name 1 to"):
        Federation.asked([])


def test_a_federated_job_has_no_data_and_another_no_participants() -> None:
    wish = Wish(
        tenant=TenantId("acme"), adapter="a", base_model="", data_sha256="", method="federated",
        config=TrainingConfig(), created_by="acme/k", federation=federation(),
    )  # fmt: skip
    wish.check()
    for wrong, field in (
        (replace(wish, data_sha256="a" * 64), "data_sha256"),
        (replace(wish, federation=None), "federated"),
        (replace(wish, method="lora", data_sha256="a" * 64), "federated"),
    ):
        with pytest.raises(InvalidRequest) as error:
            wrong.check()
        assert [each.field for each in error.value.violations] == [field]


def test_it_is_the_same_after_a_way_through_json(tmp_path: Path) -> None:
    asked = federation(labels=("a", "b"), clip_norm=1.5)
    assert Federation.from_json(json.loads(json.dumps(asdict(asked)))) == asked
    task = federated_task(tmp_path, checkpoint="1-1.safetensors")
    assert FederatedTask.from_json(task.to_json()) == task
