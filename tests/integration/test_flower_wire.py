"""What a site's connections really carry, with TLS, HTTP and all that Flower says beside: what the
method's formula has, and little more.

Skipped where `make flower` has not been run.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from services.cli.suite import free_addresses
from services.trainer.config import TrainingConfig
from services.trainer.federation import Federation, Participant
from services.trainer.flower_driver.certificates import authority, new_node_key
from services.trainer.flower_driver.environment import FOLDER, Flower
from services.trainer.flower_driver.supernode import Keeper, SuperNode, kept
from services.trainer.task import FederatedTask, Meeting, Trained
from tests.counting_relay import counting_relay
from tests.flower_world import driven, layers_of
from tests.tiny_models import make_reference, save_reference
from tests.training import base_of, written

pytestmark = [
    pytest.mark.flower,
    pytest.mark.skipif(not FOLDER.exists(), reason="`make flower` makes Flower's environment"),
]
RANK, DENSITY = 16, 0.25
SHARE = 0.005  # of the payload: records of TLS, and frames
FIXED = 100_000  # of a job, in one direction: the base model's tokeniser, the app, polls, beats
TARGETS = ("q_proj", "down_proj")
Sizes = list[tuple[int, int]]


def full(sizes: Sizes) -> int:
    return sum(out * into for out, into in sizes)


def sparse(sizes: Sizes) -> int:
    return int(DENSITY * full(sizes))  # a mask needs no indices: its seed says where


def lora(sizes: Sizes) -> int:
    return RANK * sum(out + into for out, into in sizes)


ROUNDS = {
    "full": (full,),
    "fedit": (lora,),
    "slora": (sparse, lora),
}


@pytest.fixture
def task(tmp_path: Path) -> FederatedTask:
    base = save_reference(make_reference("llama-blocks"), tmp_path / "tiny")
    key = new_node_key(tmp_path / "east.key")
    task = FederatedTask(
        config=TrainingConfig.asked(rank=RANK, target_modules=TARGETS, seed=7),
        federation=Federation.asked([Participant("east", key)], density=DENSITY, local_steps=1),
        meeting=Meeting(
            address=free_addresses().superlink, folder=tmp_path / "ca", flower=FOLDER
        ),
        base=base_of(base, fingerprint="f", layers=layers_of(base)),
        folder=tmp_path / "job",
        prefix="1-",
    )  # fmt: skip
    task.folder.mkdir()
    return task


@pytest.mark.timeout(200)
@pytest.mark.parametrize("method", ROUNDS)
def test_what_travels_is_what_the_formula_says_and_little_more(
    task: FederatedTask, tmp_path: Path, method: str
) -> None:
    sizes = [(out, into) for name, out, into in task.base.layers if name.endswith(TARGETS)]
    payload = 4 * sum(of_round(sizes) for of_round in ROUNDS[method])
    federation = replace(task.federation, method=method, rounds=len(ROUNDS[method]), first_rounds=1)
    with counting_relay(task.meeting.address) as between:
        node = SuperNode(
            name="east", folder=tmp_path / "east", superlink=between.address,
            authority=authority(tmp_path / "ca"), key=tmp_path / "east.key",
            data=written(tmp_path / "east.jsonl"), base=task.base.path, fingerprint="f",
            port=int(free_addresses().worker.rpartition(":")[2]), threads=1,
        )  # fmt: skip
        with kept([Keeper(node, Flower.found(), told=print)]):
            news = list(driven(replace(task, federation=federation)))
        assert isinstance(news[-1], Trained)
        print(f"{method}: {payload} bytes of payload, {between.down} down, {between.up} up")
        for carried in (between.down, between.up):
            assert payload <= carried <= payload * (1 + SHARE) + FIXED
