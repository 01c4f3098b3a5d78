"""Following the adapter store: what changes there, each once and in order, over restarts."""

import asyncio
from collections.abc import Sequence
from dataclasses import fields
from typing import Protocol

import grpc
import structlog

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2_grpc as rpc
from services.core.changes import Change, ChangeKind
from services.core.errors import OutOfRange, ServingError
from services.runtime.client import bearer
from services.runtime.status import from_rpc_error

log = structlog.get_logger()

RECONNECT_SECONDS = 0.5
_FIELDS = [field.name for field in fields(Change) if field.name != "kind"]


class Follower(Protocol):
    """Its methods may raise ServingError: the same is then told again."""

    async def begin(self) -> None:
        """What happens from now on will be told; what happened before may not have been."""
        ...

    async def change(self, change: Change) -> None: ...

    async def up_to_date(self) -> None:
        """Everything that had happened just now has been told."""
        ...


class StoreWatch:
    """The operator's view: everything."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub = rpc.AdapterLifecycleServiceStub(channel)
        self._metadata = bearer(token)
        self._cursor: int | None = None

    async def follow(self, followers: Sequence[Follower]) -> None:
        """Until cancelled; waits for a store that is away."""
        while True:
            try:
                await self._follow(followers)
            except OutOfRange as error:
                log.warning("watch_starts_anew", why=error.message)
                self._cursor = None
            except ServingError as error:
                log.warning("store_away", why=error.message)
            except Exception:  # what a follower did not expect; the next try may go well
                log.exception("watch_failed")
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _follow(self, followers: Sequence[Follower]) -> None:
        responses = self._stub.Watch(
            pb.WatchRequest(after=self._cursor), metadata=self._metadata, wait_for_ready=True
        )
        try:
            async for response in responses:
                for follower in followers:
                    await _tell(follower, response, begins=self._cursor is None)
                self._cursor = response.cursor
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            responses.cancel()


async def _tell(follower: Follower, response: pb.WatchResponse, *, begins: bool) -> None:
    if begins:
        await follower.begin()
    if response.HasField("change"):
        await follower.change(change_from_wire(response.change))
    else:
        await follower.up_to_date()


def change_from_wire(message: pb.Change) -> Change:
    name = pb.ChangeKind.Name(message.kind) if message.kind in pb.ChangeKind.values() else ""
    kind = ChangeKind.__members__.get(name.removeprefix("CHANGE_KIND_"))
    return Change(kind=kind, **{name: getattr(message, name) for name in _FIELDS})
