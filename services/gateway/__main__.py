"""Runs the gateway: gRPC and HTTP in one process."""

import asyncio
import uuid
from contextlib import AsyncExitStack

import grpc
from prometheus_client import CollectorRegistry, make_asgi_app

from lorikeet.gateway.v1 import (
    gateway_service_pb2_grpc,
    queue_service_pb2_grpc,
    quota_service_pb2_grpc,
    tenant_service_pb2_grpc,
    usage_service_pb2_grpc,
)
from lorikeet.kserve.v2 import inference_pb2_grpc
from services.gateway.base_models import BaseModels
from services.gateway.chat import ChatTemplates
from services.gateway.choices import Choices
from services.gateway.clients import StoreClient
from services.gateway.fair_queue import FairQueue
from services.gateway.fairness import QueueMetrics, QueueReports
from services.gateway.gateway import Gateway
from services.gateway.http import HttpLimits, build_app
from services.gateway.http_server import HttpServer
from services.gateway.intake import Intake
from services.gateway.kserve import Inferences
from services.gateway.kserve_servicer import KserveServicer
from services.gateway.leases import Recovery
from services.gateway.ledger import Ledger, Pace
from services.gateway.limits import LimitBook
from services.gateway.prompts import Prompts
from services.gateway.proxy import Proxy
from services.gateway.queue_servicer import QueueServicer
from services.gateway.quota_servicer import QuotaServicer
from services.gateway.quotas import Quotas
from services.gateway.repositories.ledger import SqlLedger
from services.gateway.repositories.quotas import SqlQuotaRepository
from services.gateway.repositories.usage import SqlUsage
from services.gateway.repository import SqlTenantRepository
from services.gateway.reservations import Reservations
from services.gateway.resolutions import Resolutions
from services.gateway.servicer import GatewayServicer
from services.gateway.settings import GatewaySettings
from services.gateway.settling import Settling
from services.gateway.tenant_servicer import TenantServicer
from services.gateway.tenants import Tenants
from services.gateway.usage import Usage
from services.gateway.usage_servicer import UsageServicer
from services.gateway.workers import Workers
from services.policies.fairness.admission import AdmissionPolicy
from services.policies.fairness.band import parsed
from services.policies.fairness.policies import POLICIES, Knobs
from services.policies.fairness.vtc import Rules
from services.runtime import telemetry
from services.runtime.access import (
    ADAPTER_LIFECYCLE,
    ADAPTER_STORE,
    GATEWAY,
    INFERENCE,
    PROXIED,
    QUEUE,
    QUOTAS,
    SCHEDULER,
    TENANTS,
    USAGE,
    scopes_of,
)
from services.runtime.auth import Gate
from services.runtime.beside import beside
from services.runtime.client import open_channel
from services.runtime.db import close_sessions, open_sessions
from services.runtime.migrate import require_current
from services.runtime.server import Server, run, stop_signal
from services.runtime.settings import load
from services.runtime.watch import StoreWatch

SPARE_SECONDS = 60.0  # to send a request and to take the end of its answer
OWN = (GATEWAY, QUEUE, TENANTS, QUOTAS, USAGE, INFERENCE)


async def main() -> None:
    settings = load(GatewaySettings)
    telemetry.setup("gateway", log_format=settings.log_format, level=settings.log_level)
    await require_current(settings.database_url)
    token = settings.service_token.get_secret_value()
    store_channel = open_channel(settings.store_address)
    scheduler_channel = open_channel(settings.scheduler_address)
    store = StoreClient(store_channel, token)
    workers, templates = Workers(token), ChatTemplates()
    settling = Settling(scheduler_channel, token, seconds=settings.settle_seconds)
    queue, reports = _queue(settings, workers, settling)
    sessions = open_sessions(settings.database_url)
    tenants = Tenants(
        SqlTenantRepository(sessions),
        pepper=settings.key_pepper.get_secret_value(),
        operator_token=settings.operator_token.get_secret_value(),
    )
    instance = uuid.uuid4().hex
    quotas = SqlQuotaRepository(sessions)
    reservations = Reservations(quotas, instance)
    ledger_rows = SqlLedger(sessions)
    recovery = Recovery(ledger_rows, instance=instance, lease_seconds=settings.lease_seconds)
    pace = Pace(beat=settings.lease_seconds / 5)
    ledger = Ledger(ledger_rows, instance=instance, cost=Rules().cost, pace=pace)
    longest = settings.longest_request_seconds + SPARE_SECONDS
    intake = Intake(settings.most_requests, longest_seconds=longest)
    base_models, resolutions = BaseModels(store), Resolutions(store)
    gateway = Gateway(
        base_models=base_models,
        store=resolutions,
        queue=queue,
        prompts=Prompts(templates),
        bookkeepers=[Quotas(reservations), ledger],
    )
    server = _grpc_server(settings, tenants, store_channel, scheduler_channel)
    gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server(
        GatewayServicer(gateway, intake, longest_seconds=settings.longest_request_seconds),
        server.grpc,
    )
    queue_service_pb2_grpc.add_QueueServiceServicer_to_server(QueueServicer(reports), server.grpc)
    quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(
        QuotaServicer(LimitBook(quotas, tenants, reservations.forget)), server.grpc
    )
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(
        UsageServicer(Usage(SqlUsage(sessions))), server.grpc
    )
    inferences = Inferences(gateway, Choices(gateway, settings.longest_request_seconds))
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        KserveServicer(inferences, intake), server.grpc
    )
    limits = HttpLimits(settings.longest_request_seconds, settings.most_body_bytes)
    http = HttpServer(
        build_app(gateway, tenants, limits, intake),
        address=settings.http_address,
        drain_seconds=settings.drain_seconds,
    )
    stopped = stop_signal()
    watch = StoreWatch(store_channel, token)
    work = (
        watch.follow([base_models, resolutions]),
        workers.follow(scheduler_channel),
        workers.redial(),
        queue.run(),
        settling.run(),
        recovery.run(),
    )
    async with AsyncExitStack() as serving:
        await serving.enter_async_context(reservations.kept())
        await serving.enter_async_context(ledger.running())
        await server.start()
        await serving.enter_async_context(beside(*work))
        await serving.enter_async_context(http)
        if settings.metrics_address:
            await serving.enter_async_context(_metrics(settings, reports))
        await stopped.wait()
        await asyncio.gather(server.drain(settings.drain_seconds), http.drain())
    await asyncio.gather(
        templates.close(), workers.close(), store_channel.close(), scheduler_channel.close()
    )
    await close_sessions(sessions)


def _queue(
    settings: GatewaySettings, workers: Workers, settling: Settling
) -> tuple[FairQueue, QueueReports]:
    """Before the workers; its policies are measured, and settled with other gateways."""
    reports = QueueReports(
        settings.policy,
        lambda base: settling.shared(base, _policy(settings)),
        cost=Rules().cost,
    )
    queue = FairQueue(workers, reports.policy, most_waiting=settings.most_waiting)
    reports.follow(queue)
    workers.changed = queue.dispatch
    return queue, reports


def _policy(settings: GatewaySettings) -> AdmissionPolicy:
    knobs = Knobs(requests_per_minute=settings.requests_per_minute, band=parsed(settings.band))
    return POLICIES[settings.policy](knobs)


def _metrics(settings: GatewaySettings, reports: QueueReports) -> HttpServer:
    registry = CollectorRegistry()
    registry.register(QueueMetrics(reports))
    return HttpServer(
        make_asgi_app(registry),
        address=settings.metrics_address,
        drain_seconds=settings.drain_seconds,
    )


def _grpc_server(
    settings: GatewaySettings,
    tenants: Tenants,
    store_channel: grpc.aio.Channel,
    scheduler_channel: grpc.aio.Channel,
) -> Server:
    """With the services that need no more than this: tenants, and the store's and scheduler's."""
    of_store = PROXIED[ADAPTER_STORE] | PROXIED[ADAPTER_LIFECYCLE]
    routes = dict.fromkeys(of_store, store_channel)
    routes |= dict.fromkeys(PROXIED[SCHEDULER], scheduler_channel)
    scopes = of_store | PROXIED[SCHEDULER]
    for service in OWN:
        scopes |= scopes_of(service)
    server = Server(
        address=settings.address,
        gate=Gate(tenants, scopes),
        services=[*OWN, ADAPTER_STORE, ADAPTER_LIFECYCLE, SCHEDULER],
        handlers=[Proxy(routes, settings.service_token.get_secret_value())],
    )
    tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(
        TenantServicer(tenants), server.grpc
    )
    return server


if __name__ == "__main__":
    run(main)
