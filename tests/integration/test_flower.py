"""A federation as it is deployed: Flower's own processes, TLS, keys, and what is killed among them.

Skipped where `make flower` has not been run.
"""

import json
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from services.cli.suite import free_addresses
from services.trainer.config import TrainingConfig
from services.trainer.federation import Federation, Participant
from services.trainer.flower.meaning import adapted
from services.trainer.flower.rounds import Clock, Rounds
from services.trainer.flower.site import Site, work
from services.trainer.flower.sites import Answer, Brief, Order
from services.trainer.flower_driver.certificates import authority, new_node_key
from services.trainer.flower_driver.environment import FOLDER, Flower
from services.trainer.flower_driver.supernode import Keeper, SuperNode, kept
from services.trainer.jobs import Checkpoint, Point
from services.trainer.task import FederatedTask, Meeting, Trained
from tests.flower_world import driven, layers_of
from tests.training import CONVERSATIONS, TARGETS, base_of, saved_base, written

pytestmark = [
    pytest.mark.flower,
    pytest.mark.skipif(not FOLDER.exists(), reason="`make flower` makes Flower's environment"),
]
NAMES = ("east", "west")


@dataclass
class World:
    folder: Path
    task: FederatedTask
    keepers: list[Keeper]

    @property
    def sites(self) -> list[Site]:
        nodes = [each.node for each in self.keepers]
        return [Site(n.name, n.data, n.base, n.fingerprint, threads=1) for n in nodes]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two sites whose keys the job names, and one whose key it does not."""
    base, addresses = saved_base(tmp_path / "tiny"), free_addresses()
    keys = {name: new_node_key(tmp_path / f"{name}.key") for name in (*NAMES, "stranger")}
    ports = (addresses.http, addresses.store, addresses.worker)
    keepers = [
        Keeper(
            SuperNode(
                name=name, folder=tmp_path / name, superlink=addresses.superlink,
                authority=authority(tmp_path / "ca"), key=tmp_path / f"{name}.key",
                data=written(tmp_path / f"{name}.jsonl", CONVERSATIONS[2 * index :]),
                base=base, fingerprint="f", port=int(port.rpartition(":")[2]), threads=1,
            ),
            Flower.found(),
            told=lambda said: None,
        )
        for index, (name, port) in enumerate(zip(keys, ports, strict=True))
    ]  # fmt: skip
    task = FederatedTask(
        config=TrainingConfig.asked(rank=2, learning_rate=0.01, target_modules=TARGETS, seed=7),
        federation=Federation.asked(
            [Participant(name, keys[name]) for name in NAMES], rounds=2, local_steps=2, quorum=2,
            deadline_seconds=60.0,
        ),
        meeting=Meeting(
            address=addresses.superlink, folder=tmp_path / "ca", flower=Flower.found().folder
        ),
        base=base_of(base, fingerprint="f", layers=layers_of(base)),
        folder=tmp_path / "job",
        prefix="1-",
    )  # fmt: skip
    task.folder.mkdir()
    return World(tmp_path, task, keepers)


def _here(world: World) -> dict[str, Any]:
    """The same rounds without Flower, and without anybody being killed."""
    task = replace(world.task, folder=world.folder / "here")
    task.folder.mkdir()
    brief = Brief(adapted(task), task.config.pack_tokens, task.config.seed)
    sites = {site.name: site for site in world.sites}

    class Here:
        def __init__(self) -> None:
            self.waiting: list[Answer] = []

        def present(self) -> Collection[str]:
            return set(NAMES)

        def ask(self, orders: Sequence[Order]) -> None:
            self.waiting += [work(sites[order.client], order, brief) for order in orders]

        def answers(self) -> Sequence[Answer]:
            found, self.waiting = self.waiting, []
            return found

    list(Rounds(task, Here(), Clock(time.monotonic, lambda: None)).run())
    return load_file(task.folder / "1-result" / "adapter_model.safetensors")


def _kill_at_work(keeper: Keeper) -> None:
    while not keeper.is_at_work:
        time.sleep(0.05)
    keeper.kill()


def _is_running(folder: Path) -> bool:
    """Whether any process knows of the folder."""
    found = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, check=False)
    return bool(found.stdout)


@pytest.mark.timeout(290)
def test_it_ends_with_the_same_bytes_whoever_is_killed(world: World) -> None:
    with kept(world.keepers):
        driving = driven(world.task)
        first = [next(driving) for _ in range(2)]
        assert [type(each) for each in first] == [Point, Checkpoint]
        driving.close()  # the trainer dies after a round, and all of its own with it
        deadline = time.monotonic() + 20
        while _is_running(world.task.folder):
            assert time.monotonic() < deadline
            time.sleep(0.1)

        assert isinstance(first[1], Checkpoint)
        task = replace(world.task, prefix="2-", checkpoint=first[1].name)
        killer = threading.Thread(target=_kill_at_work, args=(world.keepers[0],))
        killer.start()
        news = list(driven(task))
        killer.join()
    assert [type(each) for each in news] == [Point, Checkpoint, Trained]
    result = task.folder / "2-result"
    found, expected = load_file(result / "adapter_model.safetensors"), _here(world)
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)
    took_part = json.loads((result / "participants.json").read_text())
    assert [(each["name"], each["rounds"]) for each in took_part] == [("east", 2), ("west", 2)]
    log = (world.folder / "stranger" / "supernode.log").read_text()
    assert "2004" in log  # its key is nobody's
    assert "Receiving" not in log
