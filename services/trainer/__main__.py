"""Runs the trainer."""

import asyncio
import os
import socket
import uuid
from functools import partial

from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from lorikeet.trainer.v1 import trainer_service_pb2_grpc as rpc
from services.runtime import telemetry
from services.runtime.access import TRAINER, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.beside import beside
from services.runtime.client import open_channel
from services.runtime.clock import SystemClock
from services.runtime.db import close_sessions, open_sessions
from services.runtime.metrics import exported
from services.runtime.migrate import require_current
from services.runtime.server import Server, run, run_until_stopped
from services.runtime.settings import load
from services.trainer.bases import Bases, by_fingerprint
from services.trainer.clients import StoreClient
from services.trainer.datasets import DataSets
from services.trainer.desk import Desk
from services.trainer.flower_driver.certificates import authority
from services.trainer.flower_driver.environment import FOLDER, Flower
from services.trainer.metrics import TrainerMetrics
from services.trainer.repository import SqlJobs
from services.trainer.runner import Runner
from services.trainer.servicer import TrainerServicer
from services.trainer.settings import TrainerSettings
from services.trainer.task import Meeting
from services.trainer.tasks import Tasks
from services.trainer.tidying import keep_tidy

DAY_SECONDS = 86_400.0
MEBIBYTE = 1 << 20


async def main() -> None:
    settings = load(TrainerSettings)
    telemetry.setup("trainer", log_format=settings.log_format, level=settings.log_level)
    await require_current(settings.database_url)
    token = settings.service_token.get_secret_value()
    channel, sessions = open_channel(settings.store_address), open_sessions(settings.database_url)
    store, jobs, metrics = StoreClient(channel, token), SqlJobs(sessions), TrainerMetrics()
    paths = await asyncio.to_thread(by_fingerprint, settings.model_paths)
    bases = Bases(store, paths)
    data = DataSets(settings.folder / "data", most_bytes=settings.most_data_mebibytes * MEBIBYTE)
    runner = metrics.runner = _runner(
        settings, metrics, jobs=jobs, bases=bases, data=data, store=store
    )
    desk = Desk(
        jobs,
        data,
        bases,
        most_unfinished=settings.most_unfinished_jobs,
        require_flower=partial(Flower.found, settings.flower_folder),
    )
    server = Server(
        address=settings.address,
        gate=Gate(ServiceToken(token), scopes_of(TRAINER)),
        services=[TRAINER],
    )
    meeting = _meeting(settings)
    rendezvous = pb.Rendezvous(
        address=meeting.address, authority=authority(meeting.folder).read_text()
    )
    rpc.add_TrainerServiceServicer_to_server(TrainerServicer(desk, data, rendezvous), server.grpc)
    kept_seconds = settings.data_kept_days * DAY_SECONDS
    work = (
        runner.watch(),
        keep_tidy(jobs, settings.folder / "jobs", data, kept_seconds=kept_seconds),
        *(runner.work() for _ in range(settings.jobs_at_once)),
    )
    async with exported(metrics, settings.metrics_address), beside(*work):
        await run_until_stopped(server, drain_seconds=settings.drain_seconds)
    await channel.close()
    await close_sessions(sessions)


def _runner(
    settings: TrainerSettings,
    metrics: TrainerMetrics,
    *,
    jobs: SqlJobs,
    bases: Bases,
    data: DataSets,
    store: StoreClient,
) -> Runner:
    return Runner(
        jobs,
        Tasks(
            bases=bases,
            data=data,
            folder=settings.folder / "jobs",
            device=settings.device,
            threads=settings.threads,
            meeting=_meeting(settings),
        ),
        store=store,
        holder=f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}",
        clock=SystemClock(),
        pace=settings.pace,
        ended=metrics.ended,
    )


def _meeting(settings: TrainerSettings) -> Meeting:
    return Meeting(
        address=settings.superlink_address,
        folder=settings.folder / "federation",
        flower=settings.flower_folder or FOLDER,
    )


if __name__ == "__main__":
    run(main)
