"""Runs a GPU worker."""

import asyncio
import os
from typing import TYPE_CHECKING

import structlog

from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as rpc
from lorikeet.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from services.core.types import WorkerId
from services.gpu_worker.attendance import Attendance, Build
from services.gpu_worker.clients import (
    PeerClient,
    SchedulerClient,
    StoreClient,
    StoreDownloads,
    identity_of,
)
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.host_cache import HostCache
from services.gpu_worker.handover import Handover
from services.gpu_worker.kernels.choice import open_device
from services.gpu_worker.metrics import WorkerMetrics
from services.gpu_worker.model.adapters import AdapterReader
from services.gpu_worker.model.build import build_engine
from services.gpu_worker.model.fetching import Fetcher
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.merging import second_bytes
from services.gpu_worker.model.runner import TorchRunner
from services.gpu_worker.model.threads import engine_thread, keep_apart, processors, side_threads
from services.gpu_worker.prefetch import Prefetcher
from services.gpu_worker.servicer import GpuWorkerServicer
from services.gpu_worker.settings import GpuWorkerSettings
from services.gpu_worker.worker import Worker
from services.policies.merging.policies import POLICIES
from services.runtime import telemetry
from services.runtime.access import GPU_WORKER, scopes_of
from services.runtime.auth import Gate, ServiceToken
from services.runtime.beside import beside
from services.runtime.client import open_channel, open_channels
from services.runtime.metrics import exported
from services.runtime.server import Server, run, stop_signal
from services.runtime.settings import load
from services.runtime.watch import StoreWatch

if TYPE_CHECKING:
    from services.gpu_worker.model.parallel.group import Group

log = structlog.get_logger()

MEBIBYTE = 1024 * 1024
EXIT_HUNG = 70
FAREWELL_SECONDS = 2.0  # for the scheduler to hear that nothing is left here
UNHEARD_SECONDS = 60.0  # for one to write it down, if another has to lead first


async def main() -> None:
    settings = load(GpuWorkerSettings)
    telemetry.setup("gpu_worker", log_format=settings.log_format, level=settings.log_level)
    group = _group(settings)
    thread = engine_thread(_threads(settings))
    loop = asyncio.get_running_loop()
    loop.set_default_executor(side_threads())
    model, engine = await loop.run_in_executor(thread, _build, settings, group)
    token = settings.service_token.get_secret_value()
    store_channel = open_channel(settings.store_address)
    schedulers = open_channels(settings.scheduler_address)
    downloads = StoreDownloads(settings.store_address, token)
    adapters = Fetcher(downloads, _reader(settings, model, group))
    await adapters.start()
    store = StoreClient(store_channel, token, model.card)
    worker = Worker(engine, adapters, HostCache(settings.host_cache_mebibytes * MEBIBYTE), thread)
    server = Server(
        address=settings.address,
        gate=Gate(ServiceToken(token), scopes_of(GPU_WORKER)),
        services=[GPU_WORKER],
    )
    prefetcher = Prefetcher(worker)
    assert engine.carrying is not None
    handover = Handover(worker, engine.carrying, PeerClient(token, model.card.fingerprint))
    build = _build_of(settings, engine.carrying.memory.page_bytes)
    attendance = Attendance(worker, build, prefetcher.want)
    scheduler = SchedulerClient(schedulers, token, _identity(settings, model), attendance)
    servicer = GpuWorkerServicer(worker, model.card, handover, prefetcher.want)
    rpc.add_GpuWorkerServiceServicer_to_server(servicer, server.grpc)
    await store.register()
    watch = StoreWatch(store_channel, token)
    watchdog = _end_if_hung(worker, settings.hung_after_seconds)
    metrics = exported(WorkerMetrics(engine.merging), settings.metrics_address)
    async with metrics, beside(watch.follow([prefetcher]), prefetcher.run(), watchdog):
        await _serve(server, worker, scheduler, attendance, settings.drain_seconds)
    await asyncio.gather(adapters.close(), store_channel.close(), schedulers.close())
    if group is not None:
        await asyncio.to_thread(group.close)


def _group(settings: GpuWorkerSettings) -> "Group | None":
    """To be called in the thread that lives as long as the process."""
    if settings.tensor_parallel == 1:
        return None
    # Only a group needs what its members talk through.
    from services.gpu_worker.model.parallel.group import Group, GroupOptions  # noqa: PLC0415
    from services.gpu_worker.model.parallel.member import Partition  # noqa: PLC0415

    return Group(
        GroupOptions(
            members=settings.tensor_parallel,
            partition=Partition(settings.tensor_parallel_lora),
            model=settings.model_path,
            device=settings.device,
            dtype=settings.dtype,
            threads=_threads(settings),
            page_tokens=settings.limits.page_tokens,
            log_format=settings.log_format,
            log_level=settings.log_level,
        )
    )


def _threads(settings: GpuWorkerSettings) -> int:
    """Of each process."""
    return settings.threads or max(1, len(processors()) // settings.tensor_parallel)


def _identity(settings: GpuWorkerSettings, model: LoadedModel) -> scheduler_pb.WorkerIdentity:
    address = settings.advertise_address or settings.address
    return identity_of(
        model.card,
        worker_id=WorkerId(settings.worker_id or f"worker-{address}"),
        address=address,
        device=str(model.network.device.place),
        devices=settings.tensor_parallel,
    )


def _reader(
    settings: GpuWorkerSettings, model: LoadedModel, group: "Group | None"
) -> AdapterReader:
    unpacker = group.unpacker(model) if group else None
    return AdapterReader(model, page_tokens=settings.limits.page_tokens, unpacker=unpacker)


def _build_of(settings: GpuWorkerSettings, page_bytes: int) -> Build:
    limits = settings.limits
    return Build(limits.max_sequences, limits.page_tokens, page_bytes)


def _build(settings: GpuWorkerSettings, group: "Group | None") -> tuple[LoadedModel, Engine]:
    """In the engine's thread, so that no other has helpers."""
    device = open_device(settings.device, settings.dtype, settings.weights)
    name = settings.model_name or None
    if group is not None:
        model, spare = group.load(device, name)
    else:
        if device.place.type == "cpu":
            keep_apart()
        model = load_model(settings.model_path, name=name, device=device)
        spare = device.spare_memory()
    log.info("model_loaded", model=model.card.name, fingerprint=model.card.fingerprint)
    merges = settings.merging != "off"
    spare -= second_bytes(model.network) if merges else 0
    records = device.place.type == "cuda" and settings.cuda_graphs and group is None
    graph_bytes = settings.cuda_graphs_mebibytes * MEBIBYTE if records else 0
    spare -= graph_bytes
    engine = build_engine(
        model,
        memory_bytes=settings.memory_mebibytes * MEBIBYTE or spare,
        limits=settings.limits,
        keeps_prefixes=settings.prefix_cache,
        runner=group.runner if group else TorchRunner,
        merging=POLICIES[settings.merging](settings.limits.max_sequences) if merges else None,
        graph_bytes=graph_bytes,
    )
    return model, engine


async def _serve(
    server: Server,
    worker: Worker,
    scheduler: SchedulerClient,
    attendance: Attendance,
    drain_seconds: float,
) -> None:
    """Until a signal, or the scheduler sends it away: then what runs may end or go on elsewhere.
    Or until the engine breaks: then the process must not live on."""
    stopped = stop_signal()
    await server.start()
    stopping = asyncio.create_task(stopped.wait())
    attending = asyncio.create_task(scheduler.stay_attached())
    tasks: list[asyncio.Task[object]] = [
        stopping,
        asyncio.create_task(attendance.is_sent_away.wait()),
        asyncio.create_task(worker.run()),
        attending,
    ]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    worker.drain()
    if attendance.is_sent_away.is_set() or stopped.is_set():
        await _emptied(worker, stopping, drain_seconds)
        attendance.leave()
        await _left(attending, stopping)
    await server.drain(drain_seconds)
    broken = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for error in filter(None, broken):
        raise SystemExit(f"the worker broke: {error!r}")


async def _end_if_hung(worker: Worker, seconds: float) -> None:
    """Nothing can be waited for then: neither the engine's thread nor what runs in it."""
    await worker.hung(seconds)
    log.critical("engine_hung", seconds=seconds)
    os._exit(EXIT_HUNG)


async def _emptied(worker: Worker, stopping: asyncio.Task[bool], seconds: float) -> None:
    """A signal, and nothing else, sets a limit to how long that takes."""
    emptying = asyncio.create_task(worker.emptied())
    await asyncio.wait([emptying, stopping], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait([emptying], timeout=seconds)
    emptying.cancel()


async def _left(attending: asyncio.Task[None], stopping: asyncio.Task[bool]) -> None:
    """A signal sets a limit to how long that takes too."""
    either = asyncio.FIRST_COMPLETED
    await asyncio.wait([attending, stopping], timeout=UNHEARD_SECONDS, return_when=either)
    await asyncio.wait([attending], timeout=FAREWELL_SECONDS)


if __name__ == "__main__":
    run(main)
