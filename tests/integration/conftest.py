"""One real suite for all integration tests: processes, SQLite, blobs, SmolLM2, two tenants."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import openai
import pytest
from typer.testing import Result

from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc, tenant_service_pb2_grpc
from lorikeet.gateway.v1 import tenant_service_pb2 as tenants_pb
from lorikeet.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as scheduler_rpc
from lorikeet.types.v1 import adapter_pb2
from lorikeet.types.v1.generation_pb2 import SamplingParams
from services.cli.connection import CHANNEL_OPTIONS, Metadata
from services.cli.suite import Suite, embedded_model, free_addresses
from services.cli.upload import upload_folder
from services.core.base_model import Module
from services.gpu_worker.model.config import ModelConfig
from tests.peft_folders import peft_config, peft_tensors, write_peft

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "adapters"
BASE = "smollm2-135m-instruct"

T = TypeVar("T")

SMOLLM = ModelConfig(
    architecture="LlamaForCausalLM",
    hidden=576,
    intermediate=1536,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    vocabulary=49152,
    context=8192,
    norm_eps=1e-5,
    rope_theta=100000.0,
    tied_embeddings=True,
)


def bearer(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


@dataclass(slots=True)
class Running:
    """A suite that runs, and two tenants of it."""

    suite: Suite
    operator: str
    channel: grpc.Channel
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def http(self) -> str:
        return f"http://{self.suite.addresses.http}/v1"

    @property
    def gateway(self) -> Any:
        return gateway_service_pb2_grpc.GatewayServiceStub(self.channel)

    def add_tenant(self, name: str) -> str:
        stub = tenant_service_pb2_grpc.TenantServiceStub(self.channel)
        who = bearer(self.operator)
        stub.CreateTenant(tenants_pb.CreateTenantRequest(name=name), metadata=who)
        request = tenants_pb.CreateKeyRequest(tenant=name)
        self.keys[name] = stub.CreateKey(request, metadata=who).secret
        return self.keys[name]

    def upload(self, tenant: str, adapter: str, folder: Path) -> adapter_pb2.AdapterVersion:
        return upload_folder(self.channel, bearer(self.keys[tenant]), folder, adapter=adapter)

    def upload_random(self, tenant: str, adapter: str, folder: Path, *, seed: int) -> None:
        names = ["q_proj", "v_proj"]
        tensors = peft_tensors(smollm_modules(), names=names, rank=4, seed=seed)
        self.upload(tenant, adapter, write_peft(folder / adapter, peft_config(), tensors))

    def ask(self, model: str, question: str, **sampling: Any) -> pb.GenerateRequest:
        asked = SamplingParams(**({"max_tokens": 8, "temperature": 0.0} | sampling))
        chat = pb.Chat(messages=[pb.ChatMessage(role="user", content=question)])
        return pb.GenerateRequest(model=model, chat=chat, sampling=asked)

    def generate(self, request: pb.GenerateRequest, tenant: str = "acme", **call: Any) -> Any:
        return self.gateway.Generate(request, metadata=bearer(self.keys[tenant]), **call)

    def quiet(self, *, seconds: float = 10.0) -> scheduler_pb.WorkerReport:
        """The worker's report once nothing runs or waits."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            report = self.workers()[0].report
            if report.running_sequences == report.waiting_sequences == 0:
                return report
            time.sleep(0.05)
        raise AssertionError("the worker did not come to rest")

    def busy(self, sequences: int) -> None:
        """Returns once the worker reports that it runs so many."""
        deadline = time.monotonic() + 10
        while self.workers()[0].report.running_sequences != sequences:
            assert time.monotonic() < deadline, "it never began"
            time.sleep(0.05)

    def kill(self, name: str) -> None:
        process = self.suite.processes[name]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def workers(self) -> list[scheduler_pb.Worker]:
        stub = scheduler_rpc.SchedulerServiceStub(self.channel)
        request = scheduler_pb.ListWorkersRequest()
        return list(stub.ListWorkers(request, metadata=bearer(self.operator)).workers)


def smollm_modules() -> tuple[Module, ...]:
    return SMOLLM.modules()


def soon(ask: Callable[[], T], *, seconds: float = 30.0) -> T:
    """What it gives once nobody is away any more."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            if code is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def parsed(result: Result) -> Any:
    """What a command that went well printed as JSON."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@contextmanager
def started(home: Path, settings: Mapping[str, str]) -> Iterator[Running]:
    """Without tenants; it ends with the block."""
    (home / "logs").mkdir(parents=True)
    model, at = embedded_model(), free_addresses()
    suite = Suite(home, at, model, memory_mebibytes=2048, settings=settings)
    try:
        profile = suite.start(lambda step: None)
    except BaseException:
        suite.stop()
        raise
    channel = grpc.insecure_channel(profile.server, options=CHANNEL_OPTIONS)
    try:
        yield Running(suite, profile.operator_token, channel)
    finally:
        channel.close()
        suite.stop()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(tmp_path_factory.mktemp("suite") / "home", {}) as running:
        running.add_tenant("acme")
        running.add_tenant("umbrella")
        running.upload("acme", "pirate", EXAMPLES / "pirate")
        running.upload("acme", "json", EXAMPLES / "json")
        running.upload("umbrella", "secret", EXAMPLES / "json")
        yield running


@pytest.fixture(scope="session")
def client(running: Running) -> openai.OpenAI:
    """Of the tenant acme."""
    return openai.OpenAI(base_url=running.http, api_key=running.keys["acme"], max_retries=0)


@pytest.fixture(scope="session")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Another, whose parts die; each test leaves it whole. A gateway that died is found out within
    two seconds, and the worker always has an adapter in its weights. Of acme's "style" 1 talks like
    a pirate, and 2 says JSON."""
    settings = {
        "GATEWAY_LEASE_SECONDS": "2",
        "GPU_WORKER_MERGING": "always",
        "GPU_WORKER_METRICS_ADDRESS": free_addresses().worker,
    }
    with started(tmp_path_factory.mktemp("breakable") / "home", settings) as running:
        for tenant in ("acme", "friend", "stranger"):
            running.add_tenant(tenant)
        running.upload("acme", "pirate", EXAMPLES / "pirate")
        for example in ("pirate", "json"):
            running.upload("acme", "style", EXAMPLES / example)
        yield running
