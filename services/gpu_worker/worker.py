"""The one loop that turns the engine: inbox, adapters that arrived, a step, its results."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import structlog

from services.core.errors import ServingError, Unavailable
from services.core.reports import LoadTimes, MoveOutcome, StepTimes, WorkerReport
from services.core.types import Departure, Destination, Digest, RequestId, Room, TokenPiece
from services.gpu_worker.engine.engine import Engine
from services.gpu_worker.engine.host_cache import HostCache
from services.gpu_worker.engine.sequence import EngineRequest
from services.gpu_worker.fetches import AdapterSource, Fetches
from services.gpu_worker.session import Session
from services.gpu_worker.turn import Inbox, Turn, take_turn
from services.policies.fairness.profile import StepProfile
from services.policies.placement.cost import COPY_BASE_MS
from services.policies.placement.transfers import Transfers

log = structlog.get_logger()

RETRY_SECONDS = 0.02
LINGER_SECONDS = 2.0

T = TypeVar("T")


class Worker:
    """Callers and the loop share an event loop; the engine has a thread of its own."""

    def __init__(
        self,
        engine: Engine,
        adapters: AdapterSource,
        host: HostCache,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        """`thread` (one, and the worker's from now on) runs the engine; a new one if not given."""
        self._engine = engine
        self._host = host
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._inbox = Inbox()
        self._wake = asyncio.Event()
        self._sessions: set[Session] = set()
        self._owners: dict[RequestId, Session] = {}
        self._needs: dict[RequestId, Digest] = {}
        self._movable: set[RequestId] = set()
        self._fetches = Fetches(adapters, host, self._fetched)
        self._filling: set[asyncio.Task[None]] = set()
        self._offered: frozenset[Digest] = frozenset()
        self._ended = asyncio.Event()
        self._turn_began: float | None = None
        self._has_moved = False
        self.profile = StepProfile()  # the engine's thread's
        self._copies = Transfers(COPY_BASE_MS)
        self.pace: StepTimes | None = None  # as it was when somebody looked last
        self.state = WorkerReport()

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """For one caller. What still runs at its end is cancelled."""
        session = Session()
        self._sessions.add(session)
        self._wake.set()  # so that it is told of room
        if self.state.draining:
            session.finish()
        try:
            yield session
        finally:
            self._sessions.discard(session)
            for request in list(session.running):
                self.cancel(session, request)

    def start(self, session: Session, request: EngineRequest, *, movable: bool = False) -> None:
        """`movable`: its caller knows what a departure is. Raises Unavailable if the worker drains
        or a request of this id runs."""
        if self.state.draining:
            raise Unavailable("the worker is about to stop")
        if request.id in self._owners:
            raise Unavailable("a request with this id is running here")
        session.enter(request.id)
        self._owners[request.id] = session
        if request.adapter is not None:
            self._needs[request.id] = request.adapter
        if movable:
            self._movable.add(request.id)
        self._inbox.arrived.append(request)
        self._wake.set()

    def cancel(self, session: Session, request: RequestId) -> None:
        """Frees its pages within one step. If it has ended, or is another's, nothing happens."""
        if self._owners.get(request) is session:
            session.running.discard(request)
            self._abandon(request, "cancelled")

    async def between_steps(self, do: Callable[[Engine], T]) -> T:
        """What comes of it, in the engine's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, do, self._engine)

    async def change(self, do: Callable[[Engine], T]) -> T:
        """The same where it takes or gives back pages: the state tells so soon, though nothing
        runs."""
        try:
            return await self.between_steps(do)
        finally:
            self._wake.set()

    async def move(self, request: RequestId, to: Destination) -> tuple[MoveOutcome, int]:
        """Its caller is told, with all that it has made so far before; and the tokens it had."""
        if request not in self._owners:
            return MoveOutcome.GONE, 0
        if request not in self._movable:
            return MoveOutcome.FIXED, 0
        left = await self.change(lambda engine: engine.leave(request))
        owner = self._owners.get(request)  # what the step before made of it is published by now
        if left is None or owner is None:
            return MoveOutcome.GONE, 0
        self._has_moved = True
        owner.put(request, Departure(to, left.cached_tokens))
        self._forget(request, "moved")
        return MoveOutcome.LEFT, len(left.tokens)

    async def keep(self, adapters: frozenset[Digest]) -> None:
        """On the device, requests or not; no others."""
        await self.change(lambda engine: engine.keep(adapters))

    @property
    def load_times(self) -> LoadTimes:
        return LoadTimes(self._fetches.transfers.times(), self._copies.times())

    @property
    def fetching(self) -> frozenset[Digest]:
        """Adapters that are on their way to host memory."""
        return self._fetches.underway

    @property
    def on_host(self) -> dict[Digest, int]:
        """Bytes, by adapter."""
        return self._host.sizes()

    def holds(self, adapter: Digest) -> bool:
        """In host memory, on the device, or on its way."""
        is_near = adapter in self.state.resident or adapter in self.fetching
        return is_near or self._host.holds(adapter)

    async def prefetch(self, adapter: Digest) -> None:
        """Into host memory, once nothing is being fetched that requests wait for. A request that
        comes for it meanwhile waits for the same fetch."""
        await self._fetches.idle()
        if not self.holds(adapter):
            await self._fetches.of(adapter)

    async def run(self) -> None:
        """Turns the engine until cancelled."""
        try:
            while True:
                self._wake.clear()
                turn = await self._turn()
                self._publish(turn)
                self._stage(turn.wanted)
                for digest, size, fill in turn.fills:
                    task = asyncio.create_task(self._fill(digest, size, fill))
                    self._filling.add(task)
                    task.add_done_callback(self._filling.discard)
                if turn.report.is_idle:
                    await self._rest()
        finally:
            self._fetches.cancel()
            for task in self._filling:
                task.cancel()
            self._thread.shutdown(wait=True)

    def drain(self) -> None:
        """Tell the fleet that nothing new is wanted; what runs goes on."""
        self.state = replace(self.state, draining=True)
        for session in self._sessions:
            session.finish()

    async def hung(self, seconds: float) -> None:
        """Returns once a turn has taken so long: it is taken for one that never ends."""
        while self._turn_began is None or time.monotonic() - self._turn_began < seconds:  # noqa: ASYNC110
            await asyncio.sleep(seconds / 10)

    async def emptied(self) -> None:
        """Returns once nothing runs or waits here, and what went on elsewhere has had time to take
        its keys and values along."""
        while self._owners:
            self._ended.clear()
            await self._ended.wait()
        while self.state.running or self.state.waiting:  # noqa: ASYNC110  # the loop looks soon
            await asyncio.sleep(RETRY_SECONDS)
        await asyncio.sleep(LINGER_SECONDS if self._has_moved else 0)

    async def _turn(self) -> Turn:
        inbox, self._inbox = self._inbox, Inbox()
        entered = [(session, session.entered) for session in self._sessions]
        self._turn_began = time.monotonic()
        turn = await self.between_steps(lambda engine: take_turn(engine, inbox, self.profile))
        self._turn_began = None
        room = Room() if self.state.draining else turn.room
        for session, count in entered:
            session.measure(room, turn.resident, count)
        return turn

    def _publish(self, turn: Turn) -> None:
        report = turn.report
        outcomes: list[tuple[RequestId, TokenPiece | ServingError]] = [
            *report.pieces,
            *report.refused,
            *turn.refused,
        ]
        for request, outcome in outcomes:
            owner = self._owners.get(request)
            if owner is not None:
                owner.put(request, outcome)
                if request not in owner.running:
                    self._forget(request, _name_of(outcome))
        for digest, error in turn.unloadable:
            self._fail_those_who_need(digest, error)
        self.state = WorkerReport(
            running=report.running,
            waiting=report.waiting,
            total_pages=report.total_pages,
            free_pages=report.free_pages,
            resident=turn.resident,
            steps=self.state.steps + (not report.is_idle),
            draining=self.state.draining,
        )

    def _stage(self, wanted: frozenset[Digest]) -> None:
        """Offer the engine what is in host memory; fetch what is not."""
        for digest in wanted:
            weights = self._host.get(digest)
            if weights is not None:
                self._inbox.staged[digest] = weights
            elif digest in self._needs.values() or not self._fetches.is_left_alone(digest):
                self._fetches.begin(digest)  # what only the operator wants is not hurried
        offered = frozenset(self._inbox.staged)
        if offered - self._offered:
            self._wake.set()
        self._offered = offered

    async def _rest(self) -> None:
        """Until something happens; soon, if an offer found no room or a request's time runs out."""
        waits = bool(self._inbox.staged) or self.state.waiting > 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS if waits else None):
                await self._wake.wait()

    def _fetched(self, digest: Digest, error: ServingError | None) -> None:
        if error is not None:
            self._fail_those_who_need(digest, error)
        self._wake.set()

    async def _fill(self, digest: Digest, size: int, fill: Callable[[], None]) -> None:
        began = time.monotonic()
        await asyncio.to_thread(fill)
        self._copies.took(size, 1000 * (time.monotonic() - began))
        self._inbox.filled.append(digest)
        self._wake.set()

    def _fail_those_who_need(self, digest: Digest, error: ServingError) -> None:
        for request, needed in list(self._needs.items()):
            if needed == digest:
                self._owners[request].put(request, error)
                self._abandon(request, error.reason)

    def _abandon(self, request: RequestId, why: str) -> None:
        self._forget(request, why)
        self._inbox.cancelled.append(request)
        self._wake.set()

    def _forget(self, request: RequestId, why: str) -> None:
        del self._owners[request]
        self._needs.pop(request, None)
        self._movable.discard(request)
        self._ended.set()
        log.info("sequence_ended", request=request, outcome=why)


def _name_of(outcome: TokenPiece | ServingError) -> str:
    if isinstance(outcome, ServingError):
        return outcome.reason
    return outcome.finish_reason.value if outcome.finish_reason else ""
