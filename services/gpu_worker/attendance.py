"""What a worker tells the scheduler, and does for it."""

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace

import structlog

from services.core.reports import (
    AdapterChanges,
    AdapterLoad,
    AdapterPlace,
    Moved,
    MoveOrder,
    Orders,
    SequenceLoad,
    SequenceSums,
    WorkerReport,
)
from services.core.types import Digest
from services.gpu_worker.engine.engine import Holdings
from services.gpu_worker.worker import Worker

log = structlog.get_logger()

LOOK_SECONDS = 0.1  # that a report waits for a step that runs
MOST_REMEMBERED = 1024  # moves that were carried out


@dataclass(frozen=True, slots=True)
class Build:
    """Of a worker, what does not change."""

    most_sequences: int
    page_tokens: int
    page_bytes: int


class Attendance:
    """Reports never wait long for the engine: a worker whose step is long is alive, and one whose
    steps have stopped can be seen by them."""

    def __init__(self, worker: Worker, build: Build, preload: Callable[[Digest], None]) -> None:
        self._worker = worker
        self._build = build
        self._preload = preload
        self._looking: asyncio.Task[None] | None = None
        self._holdings = Holdings((), {}, frozenset())
        self._told: tuple[AdapterLoad, ...] | None = None
        self._tells_changes = False  # whoever listens understands them
        self._term = 0
        self._obeyed: OrderedDict[str, None] = OrderedDict()
        self._pinned: frozenset[Digest] = frozenset()
        self._is_asked = False  # for its sequences
        self._moved: list[Moved] = []
        self._doing: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self.is_sent_away = asyncio.Event()
        """Set when the scheduler wants the process to end."""
        self.leaves = False

    def leave(self) -> None:
        """The next report is the last."""
        self.leaves = True
        self._news.set()

    def begin(self) -> None:
        """Whoever listens from now on knows nothing yet."""
        self._told, self._tells_changes = None, False

    async def wait(self, seconds: float) -> None:
        """Until the next report is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def report(self) -> WorkerReport:
        self._news.clear()
        tells = await self._look() and self._is_asked
        adapters, told = self._adapters(), self._told
        tells_changes = self._tells_changes and told is not None
        report = replace(
            self._worker.state,
            adapters=None if tells_changes or adapters == told else adapters,
            changes=AdapterChanges.between(told or (), adapters) if tells_changes else None,
            without_room=self._holdings.without_room,
            sums=SequenceSums.of(self._holdings.sequences),
            step_times=self._worker.pace,
            load_times=self._worker.load_times,
            sequences=self._holdings.sequences if tells else None,
            moved=tuple(self._moved),
            most_sequences=self._build.most_sequences,
            page_tokens=self._build.page_tokens,
            page_bytes=self._build.page_bytes,
        )
        self._told, self._moved = adapters, []
        self._is_asked = self._is_asked and not tells
        return report

    def obey(self, orders: Orders) -> None:
        """What a scheduler of an earlier term wants is not done: another leads now."""
        if orders.term < self._term:
            log.warning("orders_of_an_earlier_term", term=orders.term, heard=self._term)
            return
        self._term = orders.term
        if orders.draining and not self.is_sent_away.is_set():
            self._worker.drain()
            self.is_sent_away.set()
            self._news.set()
        if orders.pinned != self._pinned:
            self._pinned = orders.pinned
            self._do(self._worker.keep(orders.pinned))
        for digest in orders.preloads:
            self._preload(digest)
        for move in orders.moves:
            if move.id not in self._obeyed:
                self._obeyed[move.id] = None
                self._do(self._move(move))
        while len(self._obeyed) > MOST_REMEMBERED:
            self._obeyed.popitem(last=False)
        self._tells_changes = orders.takes_changes
        if orders.tell_sequences:
            self._is_asked = True
            self._news.set()

    async def _move(self, order: MoveOrder) -> None:
        for request in order.requests:
            outcome, tokens = await self._worker.move(request, order.to)
            self._moved.append(Moved(order.id, request, outcome, tokens))
            log.info("sequence_moved", request=request, to=order.to.worker, outcome=outcome.value)
        self._news.set()

    async def _look(self) -> bool:
        """Whether what is known of the engine is of now."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._take_a_look())
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await asyncio.shield(self._looking)
        except TimeoutError:
            return False
        self._looking = None
        return True

    async def _take_a_look(self) -> None:
        profile = self._worker.profile
        self._holdings, self._worker.pace = await self._worker.between_steps(
            lambda engine: (engine.holdings(), profile.times())
        )

    def _adapters(self) -> tuple[AdapterLoad, ...]:
        """By digest, where they are best."""
        places = dict.fromkeys(self._worker.fetching, (AdapterPlace.LOADING, 0))
        places |= {
            digest: (AdapterPlace.HOST, size) for digest, size in self._worker.on_host.items()
        }
        places |= {
            digest: (AdapterPlace.DEVICE, pages * self._build.page_bytes)
            for digest, pages in self._holdings.pages.items()
        }
        running = _by_adapter(load for load in self._holdings.sequences if not load.waiting)
        waiting = _by_adapter(load for load in self._holdings.sequences if load.waiting)
        return tuple(
            AdapterLoad(
                digest=digest,
                place=place,
                bytes=size,
                running=running[digest],
                waiting=waiting[digest],
                pinned=digest in self._holdings.kept,
            )
            for digest, (place, size) in sorted(places.items())
        )

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)


def _by_adapter(loads: Iterable[SequenceLoad]) -> Counter[Digest]:
    return Counter(load.adapter for load in loads if load.adapter is not None)
