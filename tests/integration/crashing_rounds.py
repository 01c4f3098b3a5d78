"""The process of a federated job, with sites that are in it: rounds, checkpoints and result are
real. At a point of its work it kills the trainer, and ends as it would with any that is gone."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

from services.trainer.flower import checkpoints, rounds
from services.trainer.flower.rounds import Clock, Rounds
from services.trainer.flower.sites import Answer, Order
from services.trainer.flower_driver.__main__ import _end_with_the_trainer
from services.trainer.task import FederatedTask, news_to_json
from tests.federations import Here, steps_of
from tests.integration.dying import deadly

COMMAND = (sys.executable, "-m", "tests.integration.crashing_rounds")
DEATH = "LORIKEET_TEST_DEATH"
POINTS: dict[str, tuple[ModuleType, str]] = {
    "a round is over": (rounds, "_took_part"),
    "write round": (rounds, "write_round"),
    "make durable": (checkpoints, "make_durable"),
    "save adapter": (rounds, "save_adapter"),
    "tell": (sys.modules[__name__], "_tell"),
}


def main() -> None:
    task = FederatedTask.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    point, when, nth = os.environ.get(DEATH, "//0").split("/")
    if point in POINTS:
        module, name = POINTS[point]
        setattr(module, name, deadly(getattr(module, name), when, int(nth), _kill_the_trainer))
    sites = Here(does=lambda order: _noted(task, order))
    for news in Rounds(task, sites, Clock(time.monotonic, lambda: time.sleep(0.001))).run():
        sys.modules[__name__]._tell(news_to_json(news))


def asked_of(job: Path) -> Path:
    """What sites were asked for: beside the folders of jobs, which are gone once these are over."""
    return job.parents[1] / f"asked-{job.name}"


def _tell(line: str) -> None:
    print(line, flush=True)


def _noted(task: FederatedTask, order: Order) -> Answer:
    with asked_of(task.folder).open("a") as asked:
        asked.write(f"{task.prefix}{order.round}\n")
    return steps_of(order)


def _kill_the_trainer() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)  # it ends at once, with the trainer


if __name__ == "__main__":
    main()
