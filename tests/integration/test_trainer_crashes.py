"""kill -9 of the trainer at every step of a federated job: the job goes on from its last round, one
whole version comes of it, and it is the same as if nothing had happened.

LORIKEET_KILLS says how often; the default is what a test run has time for.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from tests.integration import crashing_rounds, crashing_trainer
from tests.integration.crashing_trainer_world import ROUNDS, World

KILLS = int(os.environ.get("LORIKEET_KILLS", "4"))
POINTS = (*crashing_trainer.POINTS, *crashing_rounds.POINTS)
METHODS = ("flexlora", "slora")
MOST = {  # how often a job comes there, about
    "add points": 2, "save": 3, "the store's answer": 8, "sql commit": 6, "sql statement": 30,
    "a round is over": 3, "write round": 3, "make durable": 6, "tell": 7,
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.start()
    yield world
    world.close()


def deaths() -> Iterator[tuple[str, str, int]]:
    """Every point, before and after: all of them in any order, again and again."""
    draw = random.Random(347)  # the first few are from all of a job's life
    all_of_them = [(point, when) for point in POINTS for when in ("before", "after")]
    while True:
        draw.shuffle(all_of_them)
        for point, when in all_of_them:
            yield point, when, draw.randint(1, MOST.get(point, 1))


@pytest.mark.timeout(60 + 8 * KILLS)
def test_a_job_becomes_one_version_wherever_its_trainer_is_killed(world: World) -> None:
    undisturbed = {method: world.done(method, method).digest for method in METHODS}
    assert len(set(undisturbed.values())) == len(METHODS)
    world.stop()
    kills, by_point = 0, dict.fromkeys(POINTS, 0)
    for number, (point, when, nth) in enumerate(deaths()):
        if kills >= KILLS:
            break
        name, method = f"job-{number}", METHODS[number % len(METHODS)]
        world.start(point, when, nth)
        term = saved = 0
        try:  # some die before they serve
            job = world.done(name, method)
        except grpc.RpcError:
            if not world.died():
                raise
            kills += 1
            by_point[point] += 1
            term, saved = world.reached(name)
            world.channel.close()
            world.start()
            job = world.done(name, method)  # what was asked for can simply be asked for again
        where = f"killed {when} {point}, {nth}"
        assert job.state == pb.JOB_STATE_SUCCEEDED, f"{where}: {job.error}"
        [version] = world.versions(name)
        assert version.provenance.labels["job"] == job.id
        assert (version.number, version.digest) == (job.version, job.digest), where
        assert job.digest == undisturbed[method], where
        assert world.aliases(name) == {"candidate": job.version}, where
        assert world.asked(job, after=term) == set(range(saved + 1, ROUNDS + 1)), where
        world.stop()
    print(f"{kills} kills: {by_point}")  # for whoever runs all of them
    world.start()
