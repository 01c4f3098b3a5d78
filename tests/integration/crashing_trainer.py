"""A real trainer that kills itself with SIGKILL at a point of a job's life."""

import os
import signal
from functools import partial
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from services.runtime.server import run
from services.trainer import __main__ as trainer
from services.trainer import clients
from services.trainer.clients import StoreClient
from services.trainer.repository import SqlJobs
from services.trainer.runner import Runner
from services.trainer.tasks import Tasks
from tests.integration import crashing_rounds
from tests.integration.dying import deadly

POINTS: dict[str, tuple[Any, str]] = {
    "create": (SqlJobs, "create"),
    "take": (SqlJobs, "take"),
    "task": (Tasks, "of"),
    "add points": (SqlJobs, "add_points"),
    "save": (SqlJobs, "save"),
    "trained": (SqlJobs, "trained"),
    "version of": (StoreClient, "version_of"),
    "upload": (StoreClient, "upload"),
    "the store's answer": (clients, "_answer"),
    "set alias": (StoreClient, "set_alias"),
    "succeeded": (SqlJobs, "succeeded"),
    "sql commit": (DefaultDialect, "do_commit"),
    "sql statement": (DefaultDialect, "do_execute"),
}


def serve(environment: dict[str, str], point: str, when: str, nth: int) -> None:
    """Until it is killed; by itself at the nth time that it comes to the point."""
    os.environ.update(environment)
    os.environ[crashing_rounds.DEATH] = f"{point}/{when}/{nth}"
    if point in POINTS:
        owner, name = POINTS[point]
        setattr(owner, name, deadly(getattr(owner, name), when, nth, _die))
    own = partial(Runner, federated_command=crashing_rounds.COMMAND)
    setattr(trainer, "Runner", own)  # noqa: B010
    run(trainer.main)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
