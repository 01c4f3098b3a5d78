"""From a file of examples to a version that a worker serves, whatever is killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from peft import PeftModel
from safetensors.torch import load
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as store_pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as store_rpc
from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from lorikeet.trainer.v1 import trainer_service_pb2_grpc as rpc
from services.cli.app import app
from services.cli.connection import CHANNEL_OPTIONS
from services.cli.suite import free_addresses
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.runtime import wire
from services.trainer.training.beginning import begin
from tests.databases import migrated
from tests.engines import TestBench, greedy
from tests.integration.conftest import bearer, parsed
from tests.references import canonical_of, logits_of
from tests.training import CHATML, TARGETS, saved_base, task_of, written

TOKEN = "inside"
SECONDS = 60


@dataclass
class World:
    """A store and a trainer, each a process, and a base model."""

    folder: Path
    model: LoadedModel
    environment: dict[str, str]
    at: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]]

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", f"services.{name}"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=os.environ | self.environment, stdout=log, stderr=log
            )

    def serves(self, name: str) -> None:
        deadline = time.monotonic() + SECONDS
        with grpc.insecure_channel(self.at[name], options=CHANNEL_OPTIONS) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            while True:
                try:
                    health.Check(health_pb2.HealthCheckRequest())
                    return
                except grpc.RpcError:
                    assert time.monotonic() < deadline, (self.folder / f"{name}.log").read_text()
                    time.sleep(0.05)

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def run(self, *arguments: str) -> Result:
        environment = {
            "LORIKEET_HOME": str(self.folder / "empty"),
            "LORIKEET_SERVER": self.at["trainer"],
            "LORIKEET_OPERATOR_TOKEN": TOKEN,
        }
        return CliRunner().invoke(app, [*arguments, "--tenant", "acme"], env=environment)

    def until(self, job: str, true: Callable[[pb.Job], bool]) -> pb.Job:
        deadline = time.monotonic() + SECONDS
        with grpc.insecure_channel(self.at["trainer"], options=CHANNEL_OPTIONS) as channel:
            stub, request = rpc.TrainerServiceStub(channel), pb.GetJobRequest(job_id=job)
            request.tenant = "acme"
            while not true(now := stub.GetJob(request, metadata=bearer(TOKEN)).job):
                assert time.monotonic() < deadline, (self.folder / "trainer.log").read_text()
                time.sleep(0.01)
        return now

    def version(self, reference: str) -> tuple[store_pb.GetVersionResponse, bytes]:
        """And its canonical weights."""
        with grpc.insecure_channel(self.at["adapter_store"], options=CHANNEL_OPTIONS) as channel:
            stub = store_rpc.AdapterStoreServiceStub(channel)
            asked = store_pb.GetVersionRequest(tenant="acme", reference=reference)
            found = stub.GetVersion(asked, metadata=bearer(TOKEN))
            request = store_pb.DownloadRequest(digest=found.version.digest)
            pieces = stub.Download(request, metadata=bearer(TOKEN))
            return found, b"".join(piece.data for piece in pieces)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("training")
    base = saved_base(folder / "tiny")
    (base / "chat_template.jinja").write_text(CHATML)
    addresses, model = free_addresses(), load_model(base)
    at = {"adapter_store": addresses.store, "trainer": addresses.trainer}
    with migrated("sqlite", folder) as url:
        environment = {
            "ADAPTER_STORE_BLOB_URL": f"file://{folder / 'blobs'}",
            "ADAPTER_STORE_UPLOADS_FOLDER": str(folder / "uploads"),
            "TRAINER_FOLDER": str(folder / "jobs"),
            "TRAINER_MODEL_PATHS": json.dumps([str(base)]),
            "TRAINER_STORE_ADDRESS": addresses.store,
            "TRAINER_THREADS": "1",
            "TRAINER_PACE": json.dumps({"lease_seconds": 2, "look_seconds": 0.1}),
        }
        for name, address in at.items():
            environment |= {
                f"{name.upper()}_ADDRESS": address,
                f"{name.upper()}_DATABASE_URL": url,
                f"{name.upper()}_SERVICE_TOKEN": TOKEN,
            }
        world = World(folder, model, environment, at, {})
        try:
            for name in at:
                world.start(name)
            for name in at:
                world.serves(name)
            _register(world)
            yield world
        finally:
            for process in world.processes.values():
                process.kill()
                process.wait()


def _register(world: World) -> None:
    with grpc.insecure_channel(world.at["adapter_store"], options=CHANNEL_OPTIONS) as channel:
        request = store_pb.RegisterBaseModelRequest(
            base_model=wire.base_model_to_wire(world.model.card)
        )
        store_rpc.AdapterStoreServiceStub(channel).RegisterBaseModel(
            request, metadata=bearer(TOKEN)
        )


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_job_outlives_its_trainer_and_is_served_as_it_was_trained(
    world: World, tmp_path: Path, one_thread: None
) -> None:
    data = written(tmp_path / "talk.jsonl")
    options = {
        "--rank": 2, "--steps": 100, "--pack": 24, "--seed": 7, "--learning-rate": 0.01,
        "--checkpoint": 2, "--validation": 0.2, "--evaluate": 50, "--dropout": 0.1,
    }  # fmt: skip
    said = [str(part) for option in options.items() for part in option]
    targets = [part for target in TARGETS for part in ("--target", target)]
    (job,) = parsed(world.run("train", str(data), *said, *targets, "--detach", "-o", "json"))
    running = world.until(job["id"], lambda now: now.saved_steps >= 2)
    assert running.state == pb.JOB_STATE_RUNNING
    world.kill("trainer")
    world.start("trainer")
    world.serves("trainer")
    curve = tmp_path / "loss.svg"
    (ended,) = parsed(world.run("jobs", "watch", job["id"], "--plot", str(curve), "-o", "json"))
    assert (ended["state"], ended["version"]) == ("JOB_STATE_SUCCEEDED", 1)
    assert ended["attempts"] == 2
    assert "step 1 to 100" in curve.read_text().replace("&#160;", " ")

    assert world.run("jobs", "cancel", job["id"]).exit_code == 1
    found, canonical = world.version("talk@candidate")
    assert found.version.provenance.job == job["id"]
    labels = dict(found.version.provenance.labels)
    assert labels["data_sha256"] == ended["data"]["sha256"]
    assert (labels["data"], labels["data_rows"]) == ("talk.jsonl", "6")
    assert found.version.provenance.metrics["validation_loss"] > 0

    base = world.folder / "tiny"
    task = task_of(
        base, data, steps=100, checkpoint_steps=100, validation_share=0.2, evaluate_steps=50,
        dropout=0.1,
    )  # fmt: skip
    list(begin(replace(task, threads=1)).run())  # by nobody killed
    reference: Any = AutoModelForCausalLM.from_pretrained(base)
    adapted: Any = PeftModel.from_pretrained(reference, str(data.parent / "1-result")).eval()
    expected = load(canonical_of(adapted, world.model.card.fingerprint))
    trained = load(canonical)
    assert trained.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(trained[name], tensor), name
    bench = TestBench(world.model, pages=50)
    request = greedy("one", [5, 6, 7], bench.load(canonical), 8)
    answer = bench.generate([request])[request.id]
    logits = logits_of(adapted, [5, 6, 7, *answer[:-1]])[2:]
    torch.testing.assert_close(bench.logits(request.id), logits, atol=1e-4, rtol=0)


def test_bad_data_is_said_in_one_sentence(world: World, tmp_path: Path) -> None:
    data = tmp_path / "talk.csv"
    data.write_text("instruction,output\nhi,ahoy\nhi,\n")
    result = world.run("train", str(data))
    assert result.exit_code == 1
    assert "talk.csv:3: 'output' is empty" in result.stderr
    assert parsed(world.run("jobs", "list", "-o", "json"))[0]["adapter"] == "talk"
