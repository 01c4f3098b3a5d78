"""A suite of several workers and gateways, each a process that can be killed by its name."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from bench.soak_world import CONTEXT, MODEL, World, bearer, written_adapters
from lorikeet.gateway.v1 import tenant_service_pb2 as tenants_pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as tenants_rpc
from lorikeet.scheduler.v1.scheduler_service_pb2 import Worker
from services.cli.connection import CHANNEL_OPTIONS, Profile
from services.cli.suite import Suite
from services.cli.upload import upload_folder
from tests.tiny_models import VOCABULARY, save_reference

TENANTS = ("acme", "umbrella")
QUIET_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the fleet. `within`: words of a command that runs it, before its own."""

    name: str
    service: str
    address: str
    settings: Mapping[str, str] = field(default_factory=dict)
    within: Sequence[str] = ()


@dataclass(slots=True)
class Fleet(Suite):
    members: Sequence[Member] = ()

    def _services(self) -> tuple[tuple[str, str], ...]:
        return tuple((member.name, member.address) for member in self.members)

    def _environment(self, tokens: dict[str, str]) -> dict[str, str]:
        ours = Suite._environment(self, tokens)
        for member in self.members:
            prefix = member.service.upper()
            ours[f"{prefix}_SERVICE_TOKEN"] = tokens["service_token"]
            ours.setdefault(f"{prefix}_DRAIN_SECONDS", "10")
        return ours

    def _spawn(
        self, name: str, module: str, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        member = next((each for each in self.members if each.name == name), None)
        within: Sequence[str] = ()
        if member is not None:
            module, within = f"services.{member.service}", member.within
            environment = environment | dict(member.settings)
        with self._log(name).open("ab") as log:
            return subprocess.Popen(
                [*within, sys.executable, "-m", module],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()


def saved_model(folder: Path) -> Path:
    """Random, and large enough that workers have more to do for a token than the gateway."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
    )
    folder.mkdir()
    model: PreTrainedModel = LlamaForCausalLM(config)
    return save_reference(model, folder)


def worker_at(name: str, address: str, within: Sequence[str] = ()) -> Member:
    settings = {"GPU_WORKER_ADDRESS": address, "GPU_WORKER_WORKER_ID": name}
    return Member(name, "gpu_worker", address, settings, within)


def gateway_at(name: str, address: str, http: str, within: Sequence[str] = ()) -> Member:
    settings = {"GATEWAY_ADDRESS": address, "GATEWAY_HTTP_ADDRESS": http}
    return Member(name, "gateway", address, settings, within)


@dataclass(slots=True)
class FleetWorld(World):
    """Two tenants with adapters, and what the fleet says of itself."""

    @classmethod
    def started(cls, fleet: Fleet) -> "FleetWorld":
        profile: Profile = fleet.start(lambda step: print(step, flush=True))
        channel = grpc.insecure_channel(profile.server, options=CHANNEL_OPTIONS)
        world = cls(fleet, bearer(profile.operator_token), channel)
        workers = [member for member in fleet.members if member.service == "gpu_worker"]
        while len(world.workers()) < len(workers):
            time.sleep(0.1)
        return world

    def furnish_fleet(self, folder: Path, *, adapters: int) -> None:
        """So many adapters, half of them of each tenant."""
        stub = tenants_rpc.TenantServiceStub(self.channel)
        folders = written_adapters(folder, self.suite.model)
        for tenant in TENANTS:
            stub.CreateTenant(tenants_pb.CreateTenantRequest(name=tenant), metadata=self.operator)
            wanted = tenants_pb.CreateKeyRequest(tenant=tenant)
            self.keys[tenant] = stub.CreateKey(wanted, metadata=self.operator).secret
            self.models[tenant] = [MODEL] if adapters == 0 else []
            for _ in range(adapters // len(TENANTS)):
                uploaded = next(folders)
                upload_folder(
                    self.channel, bearer(self.keys[tenant]), uploaded, adapter=uploaded.name
                )
                self.models[tenant].append(uploaded.name)

    def workers(self) -> list[Worker]:
        return self._workers()

    def steps(self) -> dict[str, int]:
        """That each worker has run."""
        return {worker.identity.id: worker.report.steps for worker in self.workers()}

    def at_rest(self) -> list[str]:
        """What still runs or is held after a while, if anything does."""
        deadline = time.monotonic() + QUIET_SECONDS
        while (found := self._busy()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def _busy(self) -> list[str]:
        """Who is away is at work, for all we know."""
        try:
            return self.at_work()
        except grpc.RpcError as error:
            return [f"somebody is away: {error}"]
