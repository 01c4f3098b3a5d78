"""Rounds: who is asked, what counts, and that going on is as if nothing had been."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from services.core.errors import InvalidRequest
from services.trainer.federation import MOST_ATTEMPTS
from services.trainer.flower.collecting import Round, chosen
from services.trainer.flower.sites import Answer, Order
from services.trainer.jobs import Checkpoint, Point
from services.trainer.task import Trained
from tests.federations import Here, Watch, federated_task, rounds_of, steps_of


def _weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "1-result" / "adapter_model.safetensors")


@pytest.mark.parametrize("method", ["flexlora", "slora", "flora", "ffa"])
def test_going_on_after_any_round_gives_the_same_bytes(tmp_path: Path, method: str) -> None:
    whole = federated_task(tmp_path / "whole", method=method)
    news = list(rounds_of(whole, Here()).run())
    assert [type(each) for each in news] == [Point, Checkpoint] * 3 + [Trained]
    expected = (whole.folder / "1-result" / "adapter_model.safetensors").read_bytes()
    for done in (1, 2, 3):
        checkpoint = whole.folder / f"1-{done}.safetensors"
        again = federated_task(tmp_path / str(done), method=method, checkpoint=checkpoint.name)
        (again.folder / checkpoint.name).write_bytes(checkpoint.read_bytes())
        sites = Here()
        list(rounds_of(again, sites).run())
        assert {order.round for order in sites.orders} == set(range(done + 1, 4))
        result = again.folder / "1-result"
        assert (result / "adapter_model.safetensors").read_bytes() == expected
        took_part = json.loads((result / "participants.json").read_text())
        assert [each["rounds"] for each in took_part] == [3, 3, 3]


def test_only_the_layers_that_were_asked_for_learn(tmp_path: Path) -> None:
    task = federated_task(tmp_path)
    list(rounds_of(task, Here()).run())
    assert {name.rsplit(".", 3)[1] for name in _weights(tmp_path)} == {"q_proj"}


def test_a_site_that_is_silent_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    def silent(order: Order) -> Answer | None:
        return None if (order.client, order.round) == ("west", 2) else steps_of(order)

    watch, sites = Watch(), Here(does=silent)
    news = list(rounds_of(federated_task(tmp_path), sites, watch).run())
    assert isinstance(news[-1], Trained)
    assert watch.seconds == 10.0  # of round 2; in the others nobody was waited for
    took_part = json.loads((tmp_path / "1-result" / "participants.json").read_text())
    assert [(each["name"], each["rounds"]) for each in took_part] == [
        ("east", 3), ("north", 3), ("west", 2),
    ]  # fmt: skip


def test_a_site_that_dials_in_late_is_asked_in_the_same_round(tmp_path: Path) -> None:
    watch, sites = Watch(), Here(away={"north"})
    watch.napped = lambda now: sites.away.clear() if now == 4 else None
    news = list(rounds_of(federated_task(tmp_path, quorum=3), sites, watch).run())
    assert isinstance(news[-1], Trained)
    assert watch.seconds == 4.0
    assert [order.client for order in sites.orders[:3]] == ["east", "west", "north"]


def test_too_few_are_asked_again_and_then_it_is_said_who_is_missing(tmp_path: Path) -> None:
    def does(order: Order) -> Answer | None:
        if order.client == "east":
            return Answer.refused(order, "data: rows.jsonl:3: 'text' is empty")
        return None if order.client == "west" else steps_of(order)

    sites = Here(does=does)
    with pytest.raises(InvalidRequest) as error:
        list(rounds_of(federated_task(tmp_path), sites).run())
    said = str(error.value)
    assert "round 1 had 1 of 2 updates" in said
    assert "east: data: rows.jsonl:3: 'text' is empty" in said
    assert "west did not answer" in said
    asked = [(order.client, order.attempt) for order in sites.orders]
    assert asked.count(("north", 0)) == 1
    assert ("north", 1) not in asked
    assert [attempt for client, attempt in asked if client == "west"] == list(range(MOST_ATTEMPTS))


@pytest.mark.parametrize("wrong", ["nan", "shape", "names", "examples", "far"])
def test_an_update_that_would_spoil_all_is_left_out(tmp_path: Path, wrong: str) -> None:
    def does(order: Order) -> Answer:
        good = steps_of(order)
        if order.client != "east":
            return good
        arrays, examples = dict(good.arrays), good.examples
        name = sorted(arrays)[0]
        if wrong == "nan":
            arrays[name] = np.full_like(arrays[name], np.nan)
        elif wrong == "shape":
            arrays[name] = arrays[name][:1]
        elif wrong == "far":
            arrays[name] = arrays[name] + np.float32(1000)
        elif wrong == "names":
            arrays["other"] = arrays.pop(name)
        else:
            examples = 0
        return Answer(order.client, order.round, order.attempt, arrays, examples, {}, "d" * 64, 3)

    task = federated_task(tmp_path / "bad", norm_bound=900.0)
    news = list(rounds_of(task, Here(does=does)).run())
    assert isinstance(news[-1], Trained)
    assert news[-1].metrics["participants"] == 2
    without = Here(does=lambda order: None if order.client == "east" else steps_of(order))
    list(rounds_of(federated_task(tmp_path / "without"), without).run())
    bad, good = _weights(tmp_path / "bad"), _weights(tmp_path / "without")
    assert all(np.array_equal(bad[name], good[name]) for name in good)


def test_one_that_lies_moves_a_median_no_further_than_others_do(tmp_path: Path) -> None:
    def lies(order: Order) -> Answer:
        good = steps_of(order)
        if order.client != "east":
            return good
        return replace(good, arrays={name: a + np.float32(1e6) for name, a in good.arrays.items()})

    most = {}
    for average in ("mean", "median", "trimmed"):
        task = federated_task(tmp_path / average, method="ffa", average=average)
        list(rounds_of(task, Here(does=lies)).run())
        weights = _weights(tmp_path / average)
        most[average] = max(float(np.abs(a).max()) for n, a in weights.items() if "lora_B" in n)
    assert most["mean"] > 1e5
    assert max(most["median"], most["trimmed"]) < 100


def test_one_attempt_does_not_take_a_second_answer() -> None:
    this: Round[int] = Round(("a", "b"), quorum=1)
    assert this.to_ask({"a", "c"}) == ["a"]
    assert not this.heard("b", 1)  # nobody asked it
    assert this.heard("a", 2)
    assert not this.heard("a", 3)
    assert (this.updates(), this.counts, this.is_complete) == ([2], True, False)
    this.without("a", "late")
    assert this.updates() == [2]


def test_who_is_chosen_depends_on_seed_and_round_alone() -> None:
    names = [f"site-{n}" for n in range(20)]
    some = chosen(names, names, 5, seed=1, number=1)
    assert some == chosen(reversed(names), set(names), 5, seed=1, number=1)
    others = [chosen(names, names, 5, seed=1, number=number) for number in range(2, 9)]
    assert all(len(set(each)) == 5 for each in others)
    assert len({some, *others}) > 4
    away = set(names) - set(some)
    assert set(chosen(names, away, 5, seed=1, number=1)) <= away


def test_updates_are_cut_and_noise_is_added_where_it_is_asked_for(tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    for name, values in (
        ("free", {}), ("cut", {"clip_norm": 1e-3}),
        ("noisy", {"clip_norm": 1e-3, "noise_multiplier": 1000.0}),
        ("again", {"clip_norm": 1e-3, "noise_multiplier": 1000.0}),
    ):  # fmt: skip
        asked: dict[str, Any] = {"method": "fedit", **values}
        task = federated_task(tmp_path / name, **asked)
        list(rounds_of(task, Here()).run())
        found[name] = {n: a for n, a in _weights(tmp_path / name).items() if "lora_B" in n}
    size = {
        name: sum(float(np.abs(a).sum()) for a in each.values()) for name, each in found.items()
    }
    assert size["cut"] < 0.01 * size["free"]
    assert size["noisy"] > 10 * size["cut"]
    assert size["again"] != size["noisy"]  # else whoever knows the job could take it away
