"""Flower's ServerApp of a federated job."""

import os
import time
from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from services.core.errors import ServingError
from services.trainer.flower.grid import GridSites
from services.trainer.flower.meaning import adapted
from services.trainer.flower.news import tell
from services.trainer.flower.rounds import Clock, Rounds
from services.trainer.flower.run_file import VARIABLE, RunFile
from services.trainer.flower.sites import Brief
from services.trainer.task import Refused

NAP_SECONDS = 0.3

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    run = RunFile.read(Path(os.environ[VARIABLE]))
    config = run.task.config
    brief = Brief(adapted(run.task), config.pack_tokens, config.seed, run.task.federation.labels)
    sites = GridSites(grid, run.nodes, brief)
    clock = Clock(time.monotonic, partial(time.sleep, NAP_SECONDS))
    try:
        for news in Rounds(run.task, sites, clock).run():
            tell(run.news, news)
    except ServingError as error:
        tell(run.news, Refused(error.message))
