"""Runs the gateway: gRPC and HTTP in one process."""

import asyncio
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, make_asgi_app

from lorikeet.gateway.v1 import (
    gateway_service_pb2_grpc,
    queue_service_pb2_grpc,
    quota_service_pb2_grpc,
    tenant_service_pb2_grpc,
    usage_service_pb2_grpc,
)
from lorikeet.kserve.v2 import inference_pb2_grpc
from lorikeet.scheduler.v1 import fleet_service_pb2  # noqa: F401  # the proxy looks its methods up
from lorikeet.trainer.v1 import trainer_service_pb2  # noqa: F401  # and these
from services.gateway.base_models import BaseModels
from services.gateway.chat import ChatTemplates
from services.gateway.choices import Choices
from services.gateway.clients import StoreClient
from services.gateway.demand import DemandReports, Punctuality
from services.gateway.fairness import QueueMetrics
from services.gateway.first_tokens import FirstTokens
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
from services.gateway.queueing import Plan, fair_queue
from services.gateway.quota_servicer import QuotaServicer
from services.gateway.quotas import Quotas
from services.gateway.repositories.leases import SqlLeases
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
from services.policies.fairness.tiers import by_tier
from services.policies.fairness.vtc import Rules
from services.runtime import telemetry
from services.runtime.access import (
    ADAPTER_LIFECYCLE,
    ADAPTER_STORE,
    FLEET,
    GATEWAY,
    INFERENCE,
    PROXIED,
    QUEUE,
    QUOTAS,
    SCHEDULER,
    TENANTS,
    TRAINER,
    USAGE,
    scopes_of,
)
from services.runtime.auth import Gate
from services.runtime.beside import beside
from services.runtime.client import Channels, open_channel, open_channels
from services.runtime.db import Sessions, close_sessions, open_sessions
from services.runtime.migrate import require_current
from services.runtime.server import Server, run, stop_signal
from services.runtime.settings import load
from services.runtime.watch import StoreWatch

OWN = (GATEWAY, QUEUE, TENANTS, QUOTAS, USAGE, INFERENCE)
SPARE_SECONDS = 60.0  # to send a request and to take the end of its answer


async def main() -> None:
    settings = load(GatewaySettings)
    telemetry.setup("gateway", log_format=settings.log_format, level=settings.log_level)
    await require_current(settings.database_url)
    token = settings.service_token.get_secret_value()
    store_channel = open_channel(settings.store_address)
    schedulers = open_channels(settings.scheduler_address)
    store = StoreClient(store_channel, token)
    workers, templates = Workers(token), ChatTemplates()
    settling = Settling(schedulers, token, seconds=settings.settle_seconds)
    queue, reports = fair_queue(_plan(settings), workers, settling)
    sessions = open_sessions(settings.database_url)
    books, registry = _books(settings, sessions), CollectorRegistry()
    punctuality = Punctuality()
    demand = DemandReports(queue, punctuality, schedulers, token)
    base_models, resolutions = BaseModels(store), Resolutions(store)
    gateway = Gateway(
        base_models=base_models,
        store=resolutions,
        queue=queue,
        prompts=Prompts(templates),
        bookkeepers=[Quotas(books.reservations), books.ledger, FirstTokens(registry), punctuality],
        first_tokens_ms=by_tier(settings.tier_first_tokens_ms),
    )
    trainers = open_channels(settings.trainer_address) if settings.trainer_address else None
    server = _grpc_server(settings, books, Channels([store_channel]), schedulers, trainers)
    http = _serve_models(settings, gateway, server, books.tenants)
    queue_service_pb2_grpc.add_QueueServiceServicer_to_server(QueueServicer(reports), server.grpc)
    work = (
        StoreWatch(store_channel, token).follow([base_models, resolutions]),
        workers.follow(schedulers),
        workers.redial(),
        queue.run(),
        settling.run(),
        demand.run(),
        books.recovery.run(),
    )
    registry.register(QueueMetrics(reports))
    metrics = _metrics(settings, registry) if settings.metrics_address else nullcontext()
    await _until_stopped(settings, books, (server, http), work, metrics)
    if trainers is not None:
        await trainers.close()
    await asyncio.gather(
        templates.close(), workers.close(), store_channel.close(), schedulers.close()
    )
    await close_sessions(sessions)


async def _until_stopped(
    settings: GatewaySettings,
    books: "_Books",
    faces: tuple[Server, HttpServer],
    work: Sequence[Coroutine[Any, Any, None]],
    metrics: AbstractAsyncContextManager[Any],
) -> None:
    """In the order of what needs what: requests settle what they reserved while it still lives."""
    server, http = faces
    stopped = stop_signal()
    async with AsyncExitStack() as serving:
        await serving.enter_async_context(books.ledger.running())
        await serving.enter_async_context(books.reservations.kept())
        await server.start()
        await serving.enter_async_context(beside(*work))
        await serving.enter_async_context(http)
        await serving.enter_async_context(metrics)
        await stopped.wait()
        await asyncio.gather(server.drain(settings.drain_seconds), http.drain())


@dataclass(frozen=True, slots=True)
class _Books:
    """What is in the database, and kept there."""

    tenants: Tenants
    limits: LimitBook
    usage: Usage
    reservations: Reservations
    ledger: Ledger
    recovery: Recovery


def _books(settings: GatewaySettings, sessions: Sessions) -> _Books:
    instance, lease = uuid.uuid4().hex, settings.lease_seconds
    tenants = Tenants(
        SqlTenantRepository(sessions),
        pepper=settings.key_pepper.get_secret_value(),
        operator_token=settings.operator_token.get_secret_value(),
    )
    quotas = SqlQuotaRepository(sessions)
    reservations = Reservations(quotas, instance)
    leases = SqlLeases(sessions, quotas)
    pace = Pace(beat=lease / 5)
    return _Books(
        tenants=tenants,
        limits=LimitBook(quotas, tenants, reservations.forget),
        usage=Usage(SqlUsage(sessions)),
        reservations=reservations,
        ledger=Ledger(SqlLedger(sessions), instance=instance, cost=Rules().cost, pace=pace),
        recovery=Recovery(leases, instance=instance, lease_seconds=lease),
    )


def _serve_models(
    settings: GatewaySettings, gateway: Gateway, server: Server, tenants: Tenants
) -> HttpServer:
    """By gRPC, and by the HTTP server that is returned: together they take on so many requests."""
    longest = settings.longest_request_seconds
    intake = Intake(settings.most_requests, longest_seconds=longest + SPARE_SECONDS)
    gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server(
        GatewayServicer(gateway, intake, longest_seconds=longest), server.grpc
    )
    inferences = Inferences(gateway, Choices(gateway, longest))
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        KserveServicer(inferences, intake), server.grpc
    )
    limits = HttpLimits(longest, settings.most_body_bytes)
    return HttpServer(
        build_app(gateway, tenants, limits, intake),
        address=settings.http_address,
        drain_seconds=settings.drain_seconds,
    )


def _plan(settings: GatewaySettings) -> Plan:
    return Plan(
        policy=settings.policy,
        requests_per_minute=settings.requests_per_minute,
        band=settings.band,
        tiers=by_tier(settings.tiers),
        most_waiting=settings.most_waiting,
    )


def _metrics(settings: GatewaySettings, registry: CollectorRegistry) -> HttpServer:
    return HttpServer(
        make_asgi_app(registry),
        address=settings.metrics_address,
        drain_seconds=settings.drain_seconds,
    )


def _grpc_server(
    settings: GatewaySettings,
    books: _Books,
    store: Channels,
    schedulers: Channels,
    trainers: Channels | None,
) -> Server:
    """With the services that need no more than the books, and those of the services behind."""
    of_store = PROXIED[ADAPTER_STORE] | PROXIED[ADAPTER_LIFECYCLE]
    of_scheduler = PROXIED[SCHEDULER] | PROXIED[FLEET]
    routes = dict.fromkeys(of_store, store) | dict.fromkeys(of_scheduler, schedulers)
    scopes = of_store | of_scheduler
    behind = [ADAPTER_STORE, ADAPTER_LIFECYCLE, SCHEDULER, FLEET]
    if trainers is not None:
        routes |= dict.fromkeys(PROXIED[TRAINER], trainers)
        scopes |= PROXIED[TRAINER]
        behind.append(TRAINER)
    for service in OWN:
        scopes |= scopes_of(service)
    server = Server(
        address=settings.address,
        gate=Gate(books.tenants, scopes),
        services=[*OWN, *behind],
        handlers=[Proxy(routes, settings.service_token.get_secret_value())],
    )
    tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(
        TenantServicer(books.tenants), server.grpc
    )
    quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(
        QuotaServicer(books.limits), server.grpc
    )
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(
        UsageServicer(books.usage), server.grpc
    )
    return server


if __name__ == "__main__":
    run(main)
