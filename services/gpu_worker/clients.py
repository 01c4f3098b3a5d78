"""The suite's other services, as a worker calls them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import grpc
import structlog

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as store_pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as store_rpc
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2 as worker_pb
from lorikeet.gpu_worker.v1 import gpu_worker_service_pb2_grpc as worker_rpc
from lorikeet.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from lorikeet.scheduler.v1 import scheduler_service_pb2_grpc as scheduler_rpc
from services.core.base_model import BaseModel
from services.core.reports import Orders, WorkerReport
from services.core.types import Digest, Fingerprint, WorkerId
from services.gpu_worker.handover import Beginning, Part
from services.runtime import wire
from services.runtime.client import CHANNEL_OPTIONS, Channels, bearer, open_channel
from services.runtime.status import from_rpc_error
from services.runtime.wire_reports import orders_from_wire, report_to_wire

log = structlog.get_logger()

DOWNLOAD_SECONDS = 300.0
REGISTER_SECONDS = 60.0
REATTACH_SECONDS = 0.5
SILENT_LEASES = 2.0  # after which a scheduler that says nothing is left


class StoreClient:
    def __init__(self, channel: grpc.aio.Channel, token: str, card: BaseModel) -> None:
        self._stub = store_rpc.AdapterStoreServiceStub(channel)
        self._metadata = bearer(token)
        self._card = card

    async def register(self) -> None:
        """Make this worker's base model known; waits for a store that is still starting."""
        try:
            await self._stub.RegisterBaseModel(
                store_pb.RegisterBaseModelRequest(base_model=wire.base_model_to_wire(self._card)),
                metadata=self._metadata,
                timeout=REGISTER_SECONDS,
                wait_for_ready=True,
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


@dataclass(frozen=True, slots=True)
class StoreDownloads:
    """A fetch_process.Source: versions as the store holds them."""

    address: str
    token: str

    def download(self, digest: Digest) -> Iterator[bytes]:
        try:
            for part in _store(self.address).Download(
                store_pb.DownloadRequest(digest=digest),
                metadata=bearer(self.token),
                timeout=DOWNLOAD_SECONDS,
            ):
                yield part.data
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


@cache
def _store(address: str) -> store_rpc.AdapterStoreServiceStub:
    return store_rpc.AdapterStoreServiceStub(grpc.insecure_channel(address, CHANNEL_OPTIONS))


class Attendance(Protocol):
    """What a worker tells the scheduler, and does for it: attendance.Attendance."""

    @property
    def leaves(self) -> bool:
        """Whether no report follows the next one."""
        ...

    @property
    def is_sent_away(self) -> asyncio.Event:
        """Set when the scheduler wants the process to end."""
        ...

    def begin(self) -> None: ...
    async def wait(self, seconds: float) -> None: ...
    async def report(self) -> WorkerReport: ...
    def obey(self, orders: Orders) -> None: ...


class SchedulerClient:
    """Keeps the worker in the fleet."""

    def __init__(
        self,
        channels: Channels,
        token: str,
        identity: scheduler_pb.WorkerIdentity,
        attendance: Attendance,
    ) -> None:
        self._channels = channels
        self._metadata = bearer(token)
        self._identity = identity
        self._attendance = attendance
        self._lease_seconds = 3.0
        self._term = 0  # the highest that was heard

    async def stay_attached(self) -> None:
        """Report until the worker leaves; attach again whenever the scheduler was away. If it
        was sent away, it stays until a scheduler knows that it has left."""
        while True:
            channel, is_known = self._channels.current, False
            try:
                is_known = await self._attach(channel)
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                log.warning("scheduler_away", why=_why(error))
            attendance = self._attendance
            if attendance.leaves and (is_known or not attendance.is_sent_away.is_set()):
                return
            self._channels.leave(channel)
            await asyncio.sleep(REATTACH_SECONDS)

    async def _attach(self, channel: grpc.aio.Channel) -> bool:
        """Until it has no more to say, and that is known, or what it hears was superseded: False.
        Raises TimeoutError."""
        stub = scheduler_rpc.SchedulerServiceStub(channel)
        call = stub.Attach(self._reports(), metadata=self._metadata)
        try:
            while True:
                async with asyncio.timeout(SILENT_LEASES * self._lease_seconds):
                    response = await call.read()
                if not isinstance(response, scheduler_pb.AttachResponse):  # the end
                    return True
                if not self._is_news(response.term):
                    return False
                self._lease_seconds = response.lease_milliseconds / 1000
                self._attendance.obey(orders_from_wire(response))
        finally:
            call.cancel()

    def _is_news(self, term: int) -> bool:
        """A scheduler of the release before has no terms."""
        self._term = max(self._term, term)
        return term in {0, self._term}

    async def _reports(self) -> AsyncIterator[scheduler_pb.AttachRequest]:
        self._attendance.begin()
        report = report_to_wire(await self._attendance.report())
        yield scheduler_pb.AttachRequest(identity=self._identity, report=report)
        leaves = False
        while not leaves:
            await self._attendance.wait(self._lease_seconds / 6)
            leaves = self._attendance.leaves
            report = report_to_wire(await self._attendance.report())
            yield scheduler_pb.AttachRequest(report=report)


def identity_of(
    card: BaseModel, *, worker_id: WorkerId, address: str, device: str, devices: int = 1
) -> scheduler_pb.WorkerIdentity:
    return scheduler_pb.WorkerIdentity(
        id=worker_id,
        address=address,
        base_model=card.name,
        base_fingerprint=card.fingerprint,
        device=device,
        devices=devices,
    )


class PeerClient:
    """A handover.Peers."""

    def __init__(self, token: str, fingerprint: Fingerprint) -> None:
        self._metadata = bearer(token)
        self._fingerprint = fingerprint

    async def read(self, address: str, wanted: Beginning) -> AsyncGenerator[Part, None]:
        salt, adapter = wanted.space
        request = worker_pb.ReadPrefixRequest(
            base_fingerprint=self._fingerprint,
            adapter_digest=adapter or "",
            cache_salt=salt,
            tokens=wanted.tokens,
            known_pages=wanted.known_pages,
        )
        async with open_channel(address) as channel:
            call = worker_rpc.GpuWorkerServiceStub(channel).ReadPrefix(
                request, metadata=self._metadata
            )
            try:
                async for part in call:
                    yield Part(part.data, part.layout, part.page_tokens, part.pages)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error


def _why(error: grpc.aio.AioRpcError | TimeoutError) -> str:
    return (error.details() or "") if isinstance(error, grpc.aio.AioRpcError) else "silent"
