"""Workers from which nothing comes any more, though nobody hung up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from services.core.errors import Unavailable
from services.core.types import WorkerId
from services.gateway import workers as of_workers
from services.gateway.worker_line import WorkerLine
from services.gateway.worker_room import WorkerIdentity
from services.gateway.workers import Workers
from services.gpu_worker import servicer, session
from services.policies import silence
from services.runtime.beside import beside
from tests.relay import Relay, a_relay
from tests.serving import PAGES, TOKEN, Serving, a_worker

BEAT = 0.05
LONG = 1500  # tokens


@pytest.fixture(autouse=True)
def beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of what it is."""
    monkeypatch.setattr(session, "BEAT_SECONDS", BEAT)
    monkeypatch.setattr(servicer, "BEAT_SECONDS", BEAT)
    monkeypatch.setattr(of_workers, "RECONNECT_SECONDS", BEAT)


@dataclass(slots=True)
class Remote:
    """A worker behind a relay, and a gateway's lines."""

    serving: Serving
    relay: Relay
    workers: Workers

    @property
    def identity(self) -> WorkerIdentity:
        card = self.serving.model.card
        return WorkerIdentity(WorkerId("w"), self.relay.address, card.name, card.fingerprint)

    @property
    def lines(self) -> list[WorkerLine]:
        return self.serving.lines_of(self.workers)

    async def line(self, *, has_room: bool = True) -> WorkerLine:
        async with asyncio.timeout(5):
            while not self.lines or self.lines[0].has_room is not has_room:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return self.lines[0]


@asynccontextmanager
async def a_remote_worker() -> AsyncIterator[Remote]:
    async with AsyncExitStack() as stack:
        serving = await stack.enter_async_context(a_worker())
        relay = await stack.enter_async_context(a_relay(serving.address))
        remote = Remote(serving, relay, Workers(TOKEN))
        stack.push_async_callback(remote.workers.close)
        remote.workers.name([remote.identity])
        await stack.enter_async_context(beside(remote.workers.redial()))
        yield remote


async def _all(line: WorkerLine, serving: Serving) -> None:
    async for _ in line.follow(serving.job("cut", LONG), 5):
        pass


@pytest.mark.parametrize("named", [True, False], ids=["reached-by-the-scheduler", "by-nobody"])
async def test_what_is_on_it_is_lost_and_it_is_called_anew(named: bool) -> None:
    async with a_remote_worker() as remote:
        line = await remote.line()
        running = asyncio.create_task(_all(line, remote.serving))
        await remote.serving.runs(1)
        remote.relay.cut()
        if not named:
            remote.workers.name([])
        with pytest.raises(Unavailable, match="silent"):
            await running
        remote.relay.heal()
        remote.workers.name([remote.identity])
        assert await remote.line() is not line
        await remote.serving.runs(0)
        assert remote.serving.worker.state.free_pages == PAGES


async def test_it_is_given_nothing_new_while_that_is_in_doubt() -> None:
    async with a_remote_worker() as remote:
        line = await remote.line()
        remote.relay.cut()
        assert await remote.line(has_room=False) is line
        assert not line.fits(remote.serving.job("next"))
        assert not line.has_ended
        remote.relay.heal()
        assert await remote.line() is line


async def test_one_that_has_nothing_to_say_says_so() -> None:
    async with a_remote_worker() as remote:
        line = await remote.line()
        await asyncio.sleep(1.5 * silence.LOST_BEATS_ALONE * BEAT)
        assert await remote.line() is line


async def test_time_in_which_the_gateway_was_stopped_itself_does_not_count() -> None:
    async with a_remote_worker() as remote:
        line = await remote.line()
        for _ in range(2 * silence.LOST_BEATS):
            line.listen(BEAT, named=False)  # between two of them it hears
            await asyncio.sleep(2 * BEAT)
        assert not line.has_ended
