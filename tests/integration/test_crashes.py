"""kill -9 of the store at every step of its work: nothing that was acknowledged is lost, nothing
that was not whole is served, and nobody has to repair anything.

LORIKEET_KILLS says how often; the default is what a test run has time for.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import grpc
import pytest

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as store_pb
from services.runtime import wire
from tests.integration.crashing_store import LEASE_SECONDS, POINTS
from tests.integration.crashing_world import WHO, World, content
from tests.unit.adapter_store.test_validation import BASE

KILLS = int(os.environ.get("LORIKEET_KILLS", "12"))
OF_UPLOADS = (
    "open upload",
    "append",
    "sync",
    "admit",
    "receive",
    "write chunk",
    "read tensor",
    "write blob",
    "link blob",
    "lease",
    "promote",
    "stored",
    "commit version",
    "discard",
)
OF_DOORS = ("admit", "receive")
OF_CHUNKS = ("append", "sync", "write chunk")
OF_PARTS = ("link blob",)
OF_WHOLE = ("read tensor", "write blob")
OF_MOVES = ("move",)
OF_DELETIONS = ("delete",)
OF_COLLECTIONS = (
    "purge versions",
    "purge uploads",
    "purge changes",
    "discard blobs",
    "delete blob",
    "forget garbage",
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.start()
    model = wire.base_model_to_wire(BASE)
    world.store.RegisterBaseModel(store_pb.RegisterBaseModelRequest(base_model=model), metadata=WHO)
    for _ in range(3):
        world.upload(content(next(world.seeds)))
    world.promote(1)
    world.stop()
    yield world
    world.stop()


def deaths() -> Iterator[tuple[str, str, int]]:
    """Every point, before and after, and torn writes: all of them in any order, again and again."""
    draw = random.Random(0)
    all_of_them = [(point, when) for point in POINTS for when in ("before", "after")]
    all_of_them += [("append", "torn")] * 2
    while True:
        draw.shuffle(all_of_them)
        for point, when in all_of_them:
            most = {"append": 3, "sql commit": 4, "sql statement": 12}.get(point, 1)
            yield point, when, draw.randint(1, most)


def work_for(world: World, point: str, draw: random.Random) -> Callable[[], None]:
    """Something that comes to the point."""
    spare = sorted(world.live() - {world.known.production})
    kind = draw.choice(["upload", "promote", "delete", "collect"])
    if point in OF_UPLOADS or (not point.startswith("sql") and len(spare) < 2):
        kind = "upload"
    elif point in OF_MOVES:
        kind = "promote"
    elif point in OF_DELETIONS:
        kind = "delete"
    elif point in OF_COLLECTIONS:
        kind = "collect"
    if kind == "promote" and spare:
        number = draw.choice(spare)
        return lambda: world.promote(number)
    if kind == "delete" and len(spare) > 2:
        number = draw.choice(spare)
        return lambda: world.delete(number)
    if kind == "collect" and spare:
        number = draw.choice(spare)

        def collect() -> None:
            world.delete(number)
            time.sleep(LEASE_SECONDS)
            world.collect()

        return collect
    known = not point.startswith(OF_UPLOADS) and draw.random() < 0.3
    data = content(draw.choice([0, 1]) if known else next(world.seeds))
    directly = point in OF_DOORS or (point not in OF_CHUNKS and draw.random() < 0.5)
    in_parts = point in OF_PARTS or (point not in OF_WHOLE and draw.random() < 0.5)
    return lambda: world.upload(data, directly=directly, in_parts=in_parts)


@pytest.mark.timeout(60 + 5 * KILLS)
def test_nothing_is_lost_and_nothing_needs_repair(world: World) -> None:
    draw, kills, by_point = random.Random(1), 0, dict.fromkeys(POINTS, 0)
    for point, when, nth in deaths():
        if kills >= KILLS:
            break
        work = work_for(world, point, draw)
        world.start(point, when, nth)
        try:  # some die before they serve
            world.check()
            work()
        except (grpc.RpcError, OSError, HTTPException):
            if not world.died():
                raise
            kills += 1
            by_point[point] += 1
            world.channel.close()
            world.start()
            world.check()
            work()  # what was asked for can simply be asked for again
        world.check()
        world.stop()
    print(f"{kills} kills: {by_point}")  # for whoever runs all of them
    world.start()
    time.sleep(LEASE_SECONDS)
    world.collect()
    world.check()
    digests = {world.known.versions[number] for number in world.live()}
    assert world.files() == sorted(digests)  # no orphan, and each once
    assert list((world.folder / "uploads").iterdir()) == []
    for left in (world.folder / "blobs").rglob("*#*"):
        os.utime(left, (0, 0))  # long ago
    world.collect()
    assert list((world.folder / "blobs").rglob("*#*")) == []
