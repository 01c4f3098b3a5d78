"""The soaked suite: a small random model, tenants with adapters, and what it says of itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from bench.soak_streams import METERED
from lorikeet.gateway.v1 import queue_service_pb2 as queue_pb
from lorikeet.gateway.v1 import queue_service_pb2_grpc as queue_rpc
from lorikeet.gateway.v1 import quota_service_pb2 as quota_pb
from lorikeet.gateway.v1 import quota_service_pb2_grpc as quota_rpc
from lorikeet.gateway.v1 import tenant_service_pb2 as tenants_pb
from lorikeet.gateway.v1 import tenant_service_pb2_grpc as tenants_rpc
from lorikeet.gateway.v1 import usage_service_pb2 as usage_pb
from lorikeet.gateway.v1 import usage_service_pb2_grpc as usage_rpc
from lorikeet.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as scheduler_rpc
from services.cli.connection import CHANNEL_OPTIONS, Metadata, Profile
from services.cli.suite import Suite
from services.cli.upload import upload_folder
from services.gpu_worker.model.config import read_config
from tests.peft_folders import peft_config, peft_tensors, write_peft
from tests.tiny_models import make_reference, save_reference

MODEL = "soaked"
CONTEXT = 2048
TENANTS = ("acme", "umbrella", "initech", METERED)
ADAPTERS = 3  # of each tenant


@dataclass(slots=True)
class World:
    suite: Suite
    operator: Metadata
    channel: grpc.Channel
    keys: dict[str, str] = field(default_factory=dict)
    models: dict[str, list[str]] = field(default_factory=dict)  # that a tenant asks for

    @classmethod
    def of(cls, suite: Suite, profile: Profile) -> "World":
        channel = grpc.insecure_channel(profile.server, options=CHANNEL_OPTIONS)
        return cls(suite, bearer(profile.operator_token), channel)

    def furnish(self, adapters: Path, *, running: int, budget: int) -> None:
        """Tenants with adapters, and the limits of one of them."""
        stub = tenants_rpc.TenantServiceStub(self.channel)
        folders = written_adapters(adapters, self.suite.model)
        for tenant in TENANTS:
            request = tenants_pb.CreateTenantRequest(name=tenant)
            stub.CreateTenant(request, metadata=self.operator)
            wanted = tenants_pb.CreateKeyRequest(tenant=tenant)
            self.keys[tenant] = stub.CreateKey(wanted, metadata=self.operator).secret
            self.models[tenant] = [MODEL]
            for _ in range(ADAPTERS):
                folder = next(folders)
                who = bearer(self.keys[tenant])
                upload_folder(self.channel, who, folder, adapter=folder.name)
                self.models[tenant].append(folder.name)
        limits = quota_pb.Limits(concurrent_requests=running, tokens_in_total=budget)
        quota_rpc.QuotaServiceStub(self.channel).SetLimits(
            quota_pb.SetLimitsRequest(tenant=METERED, limits=limits), metadata=self.operator
        )

    def metered(self) -> quota_pb.Usage:
        stub = quota_rpc.QuotaServiceStub(self.channel)
        request = quota_pb.GetLimitsRequest(tenant=METERED)
        return stub.GetLimits(request, metadata=self.operator).quota.usage

    def unrest(self) -> list[str]:
        """What still runs, waits or is held anywhere."""
        found = self.at_work()
        usage = self.metered()
        if usage.running_requests or usage.reserved_tokens:
            found.append(f"the quota: {usage}")
        return found

    def at_work(self) -> list[str]:
        """What runs or waits at workers and in the queue."""
        found = [f"the worker: {worker.report}" for worker in self._workers() if _is_busy(worker)]
        queue = queue_rpc.QueueServiceStub(self.channel)
        request = queue_pb.WatchQueueRequest(once=True)
        for answer in queue.WatchQueue(request, metadata=self.operator):
            found += [
                f"the queue: {tenant}"
                for lane in answer.lanes
                for tenant in lane.tenants
                if tenant.waiting or tenant.running
            ]
        return found

    def rows(self) -> list[usage_pb.RequestRecord]:
        """Everybody's."""
        return list(self._rows())

    def sums(self) -> list[usage_pb.UsageSum]:
        """By tenant."""
        request = usage_pb.GetUsageRequest(group_by=[usage_pb.USAGE_DIMENSION_TENANT])
        return list(self._usage.GetUsage(request, metadata=self.operator).sums)

    def _rows(self) -> Iterator[usage_pb.RequestRecord]:
        request = usage_pb.ListRequestsRequest(
            page_size=1000, order=usage_pb.REQUEST_ORDER_OLDEST_FIRST
        )
        while True:
            page = self._usage.ListRequests(request, metadata=self.operator)
            yield from page.requests
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def _workers(self) -> list[scheduler_pb.Worker]:
        stub = scheduler_rpc.SchedulerServiceStub(self.channel)
        request = scheduler_pb.ListWorkersRequest()
        return list(stub.ListWorkers(request, metadata=self.operator).workers)

    @property
    def _usage(self) -> Any:
        return usage_rpc.UsageServiceStub(self.channel)


def saved_model(folder: Path) -> Path:
    """Its tokens are the words w0, w1, ..., so that a text has as many tokens as it has "w"s."""
    folder.mkdir()
    model = make_reference("llama")
    model.config.max_position_embeddings = CONTEXT
    return save_reference(model, folder)


def written_adapters(folder: Path, model: Path) -> Iterator[Path]:
    """Random ones, each another."""
    modules = read_config(json.loads((model / "config.json").read_text())).modules()
    seed = 0
    while True:
        seed += 1
        tensors = peft_tensors(modules, names=["q_proj", "v_proj"], rank=4, seed=seed)
        yield write_peft(folder / f"a{seed}", peft_config(base_model_name_or_path=MODEL), tensors)


def _is_busy(worker: scheduler_pb.Worker) -> bool:
    report = worker.report
    at_work = report.running_sequences or report.waiting_sequences
    return bool(at_work or report.free_pages != report.total_pages)


def bearer(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)
