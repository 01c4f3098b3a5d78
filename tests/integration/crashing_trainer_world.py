"""A trainer that dies and comes back beside a store that stays, and jobs of it."""

import json
import multiprocessing
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as lifecycle_pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as store_pb
from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from lorikeet.trainer.v1 import trainer_service_pb2_grpc as rpc
from lorikeet.types.v1.adapter_pb2 import AdapterVersion
from services.cli.suite import free_addresses
from services.runtime import wire
from services.runtime.client import CHANNEL_OPTIONS
from services.runtime.model_files import files_of, fingerprint_of
from services.trainer.jobs import JobState
from tests.federations import participants
from tests.integration import crashing_world
from tests.integration.crashing_rounds import asked_of
from tests.integration.crashing_trainer import serve
from tests.integration.crashing_world import CONTEXT, WHO
from tests.unit.adapter_store.test_validation import BASE

ROUNDS = 3
OVER = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)

multiprocessing.set_forkserver_preload(
    ["tests.integration.crashing_store", "tests.integration.crashing_trainer"]
)


class World:
    def __init__(self, folder: Path) -> None:
        self.store = crashing_world.World(folder)
        self.store.start()
        model = _model(folder / "model")
        base = wire.base_model_to_wire(replace(BASE, fingerprint=fingerprint_of(files_of(model))))
        request = store_pb.RegisterBaseModelRequest(base_model=base)
        self.store.store.RegisterBaseModel(request, metadata=WHO)
        self.folder, at = folder, free_addresses()
        self.address = at.trainer
        self.environment = {
            "TRAINER_ADDRESS": at.trainer,
            "TRAINER_DATABASE_URL": self.store.environment["ADAPTER_STORE_DATABASE_URL"],
            "TRAINER_STORE_ADDRESS": self.store.address,
            "TRAINER_SERVICE_TOKEN": "service",
            "TRAINER_SUPERLINK_ADDRESS": at.superlink,
            "TRAINER_FOLDER": str(folder / "training"),
            "TRAINER_MODEL_PATHS": json.dumps([str(model)]),
            "TRAINER_FLOWER_FOLDER": str(_flower(folder / "flower")),
            "TRAINER_LOG_LEVEL": "critical",
            "TRAINER_PACE__LEASE_SECONDS": "0.4",
            "TRAINER_PACE__LOOK_SECONDS": "0.02",
            "TRAINER_PACE__RETRY_SECONDS": "0.05",
        }
        self.process: Any = None

    def start(self, point: str = "", when: str = "", nth: int = 0) -> None:
        self.process = CONTEXT.Process(target=serve, args=(self.environment, point, when, nth))
        self.process.start()
        self.channel = grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        ready = grpc.channel_ready_future(self.channel)
        while self.process.is_alive() and not ready.done():
            time.sleep(0.02)
        ready.cancel()
        self.trainer = rpc.TrainerServiceStub(self.channel)

    def stop(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.join()

    def close(self) -> None:
        self.stop()
        self.store.stop()

    def died(self) -> bool:
        """Whether it did what it was armed to do."""
        self.process.join(timeout=5)
        return bool(self.process.exitcode == -9)

    def done(self, name: str, method: str) -> pb.Job:
        """A job of that name, which may be there already, at its end."""
        federated = pb.FederatedConfig(
            participants=[
                pb.Participant(name=each.name, public_key=each.public_key)
                for each in participants()
            ],
            method=method, rounds=ROUNDS, first_rounds=1, density=0.5, deadline_seconds=10.0,
        )  # fmt: skip
        request = pb.CreateJobRequest(
            tenant="acme", adapter=name, method="federated", request_id=name, federated=federated,
            config=pb.TrainingConfig(rank=2, target_modules=["q_proj"], seed=7),
        )  # fmt: skip
        job = self.trainer.CreateJob(request, metadata=WHO).job
        asked = pb.GetJobRequest(tenant="acme", job_id=job.id)
        deadline = time.monotonic() + 30
        while (job := self.trainer.GetJob(asked, metadata=WHO).job).state not in OVER:
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
        return job

    def reached(self, name: str) -> tuple[int, int]:
        """Of a job that nobody is at: how often it was taken, and the rounds that are done."""
        database = self.environment["TRAINER_DATABASE_URL"].partition("///")[2]
        query = "select state, term, saved_steps from training_jobs where request_id = ?"
        with closing(sqlite3.connect(database)) as connection:
            found = connection.execute(query, [name]).fetchone()
        if found is None:
            return 0, 0
        state, term, saved = found
        trained = state in (JobState.PUBLISHING.value, JobState.SUCCEEDED.value)
        return term, ROUNDS if trained else saved

    def asked(self, job: pb.Job, *, after: int) -> set[int]:
        """Rounds that sites were asked for by whoever took it after so many had."""
        file = asked_of(self.folder / "training" / "jobs" / job.id)
        lines = [line.split("-") for line in file.read_text().split()]
        return {int(number) for term, number in lines if int(term) > after}

    def versions(self, adapter: str) -> list[AdapterVersion]:
        request = store_pb.ListVersionsRequest(tenant="acme", adapter=adapter)
        return list(self.store.store.ListVersions(request, metadata=WHO).versions)

    def aliases(self, adapter: str) -> dict[str, int]:
        request = lifecycle_pb.ListAliasesRequest(tenant="acme", adapter=adapter)
        found = self.store.lifecycle.ListAliases(request, metadata=WHO).aliases
        return {each.name: each.number for each in found}


def _model(folder: Path) -> Path:
    """That has a fingerprint: sites compute nothing by it."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def _flower(folder: Path) -> Path:
    """That is there: rounds do without it."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "flower-superlink").touch()
    return folder
