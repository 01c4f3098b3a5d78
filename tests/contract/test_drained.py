"""Who has drained ends its process once SQL says so, whichever scheduler wrote it down."""

import asyncio
import math

from lorikeet.scheduler.v1 import scheduler_service_pb2 as pb
from services.cli.suite import free_addresses
from services.core.reports import WorkerReport
from services.core.types import WorkerId
from services.gpu_worker.clients import SchedulerClient
from services.runtime.client import open_channels
from services.runtime.clock import SystemClock
from services.runtime.db import Sessions
from services.scheduler.office import Office
from services.scheduler.repository import SqlTerms, SqlWishes
from services.scheduler.wishes import WorkerWish
from tests.schedulers import TOKEN, Attending, leading, reign_of, serving, until

OLD = WorkerId("old")
IDENTITY = pb.WorkerIdentity(id=OLD, address="127.0.0.1:1", base_model="base")


class Emptied(Attending):
    """Nothing runs any more: its next report is the last."""

    leaves = True

    async def report(self) -> WorkerReport:
        return WorkerReport(draining=True)


def emptied(*, sent_away: bool) -> Emptied:
    found = Emptied([])
    if sent_away:
        found.is_sent_away.set()
    return found


async def wish_of_old(sessions: Sessions) -> WorkerWish:
    return (await SqlWishes(sessions, 0).read()).workers[OLD]


async def test_a_drain_is_written_down_though_the_leader_dies_before(sessions: Sessions) -> None:
    at, clock = free_addresses(), SystemClock()
    term = await SqlTerms(sessions).take_over("first")
    sql = SqlWishes(sessions, term)
    await sql.set_worker(OLD, WorkerWish.DRAIN, "me")
    first = reign_of(sessions, term, clock=clock, wishes=await sql.read())  # its loop never runs
    channels, office = open_channels(at.scheduler), Office(clock)
    client = SchedulerClient(channels, TOKEN, IDENTITY, emptied(sent_away=True))
    leaving = asyncio.create_task(client.stay_attached())
    async with serving(office, at.scheduler):
        with office.held(first, math.inf):
            await until(lambda: first.fleet.drained == [OLD])
    assert await wish_of_old(sessions) is WorkerWish.DRAIN
    async with leading(sessions, at.scheduler):
        async with asyncio.timeout(10):
            await leaving
        assert await wish_of_old(sessions) is WorkerWish.CORDON
    await channels.close()


async def test_who_stops_by_itself_waits_for_no_scheduler() -> None:
    channels = open_channels(free_addresses().scheduler)  # where there is none
    client = SchedulerClient(channels, TOKEN, IDENTITY, emptied(sent_away=False))
    async with asyncio.timeout(10):
        await client.stay_attached()
    await channels.close()
