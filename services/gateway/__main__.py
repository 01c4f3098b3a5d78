"""Runs the gateway: gRPC and HTTP in one process."""

import asyncio

import grpc

from lorikeet.gateway.v1 import gateway_service_pb2_grpc, tenant_service_pb2_grpc
from lorikeet.kserve.v2 import inference_pb2_grpc
from services.gateway.base_models import BaseModels
from services.gateway.chat import ChatTemplates
from services.gateway.choices import Choices
from services.gateway.clients import SchedulerClient, StoreClient
from services.gateway.gateway import Gateway
from services.gateway.http import HttpLimits, build_app
from services.gateway.http_server import HttpServer
from services.gateway.kserve import Inferences
from services.gateway.kserve_servicer import KserveServicer
from services.gateway.prompts import Prompts
from services.gateway.proxy import Proxy
from services.gateway.repository import SqlTenantRepository
from services.gateway.resolutions import Resolutions
from services.gateway.servicer import GatewayServicer
from services.gateway.settings import GatewaySettings
from services.gateway.tenant_servicer import TenantServicer
from services.gateway.tenants import Tenants
from services.gateway.worker_client import WorkerClient
from services.runtime import telemetry
from services.runtime.access import (
    ADAPTER_LIFECYCLE,
    ADAPTER_STORE,
    GATEWAY,
    INFERENCE,
    PROXIED,
    SCHEDULER,
    TENANTS,
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


async def main() -> None:
    settings = load(GatewaySettings)
    telemetry.setup("gateway", log_format=settings.log_format, level=settings.log_level)
    await require_current(settings.database_url)
    token = settings.service_token.get_secret_value()
    store_channel = open_channel(settings.store_address)
    scheduler_channel = open_channel(settings.scheduler_address)
    store = StoreClient(store_channel, token)
    workers, templates = WorkerClient(token), ChatTemplates()
    sessions = open_sessions(settings.database_url)
    tenants = Tenants(
        SqlTenantRepository(sessions),
        pepper=settings.key_pepper.get_secret_value(),
        operator_token=settings.operator_token.get_secret_value(),
    )
    base_models, resolutions = BaseModels(store), Resolutions(store)
    gateway = Gateway(
        base_models=base_models,
        store=resolutions,
        scheduler=SchedulerClient(scheduler_channel, token),
        workers=workers,
        prompts=Prompts(templates),
    )
    server = _grpc_server(settings, gateway, tenants, store_channel, scheduler_channel)
    limits = HttpLimits(settings.longest_request_seconds, settings.most_body_bytes)
    http = HttpServer(
        build_app(gateway, tenants, limits),
        address=settings.http_address,
        drain_seconds=settings.drain_seconds,
    )
    stopped = stop_signal()
    watch = StoreWatch(store_channel, token)
    await server.start()
    async with beside(watch.follow([base_models, resolutions])), http:
        await stopped.wait()
        await asyncio.gather(server.drain(settings.drain_seconds), http.drain())
    await asyncio.gather(
        templates.close(), workers.close(), store_channel.close(), scheduler_channel.close()
    )
    await close_sessions(sessions)


def _grpc_server(
    settings: GatewaySettings,
    gateway: Gateway,
    tenants: Tenants,
    store_channel: grpc.aio.Channel,
    scheduler_channel: grpc.aio.Channel,
) -> Server:
    """The gateway's own services, and the store's and scheduler's behind it."""
    of_store = PROXIED[ADAPTER_STORE] | PROXIED[ADAPTER_LIFECYCLE]
    routes = dict.fromkeys(of_store, store_channel)
    routes |= dict.fromkeys(PROXIED[SCHEDULER], scheduler_channel)
    scopes = scopes_of(GATEWAY) | scopes_of(TENANTS) | scopes_of(INFERENCE)
    scopes |= of_store | PROXIED[SCHEDULER]
    server = Server(
        address=settings.address,
        gate=Gate(tenants, scopes),
        services=[GATEWAY, TENANTS, INFERENCE, ADAPTER_STORE, ADAPTER_LIFECYCLE, SCHEDULER],
        handlers=[Proxy(routes, settings.service_token.get_secret_value())],
    )
    gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server(
        GatewayServicer(gateway, longest_seconds=settings.longest_request_seconds),
        server.grpc,
    )
    tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(
        TenantServicer(tenants), server.grpc
    )
    choices = Choices(gateway, settings.longest_request_seconds)
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        KserveServicer(Inferences(gateway, choices)), server.grpc
    )
    return server


if __name__ == "__main__":
    run(main)
