"""Who leads answers; who led, or may have been followed by another, does not."""

from contextlib import AsyncExitStack

import pytest

from services.core.clock import ManualClock
from services.core.errors import Unavailable
from services.runtime.db import IN_MEMORY, close_sessions, open_sessions
from services.scheduler.office import Office, Reign
from tests.schedulers import reign_of


@pytest.fixture
async def reigns() -> list[Reign]:
    async with AsyncExitStack() as stack:
        sessions = open_sessions(IN_MEMORY)
        stack.push_async_callback(close_sessions, sessions)
        return [reign_of(sessions, term, clock=ManualClock()) for term in (1, 2)]


def test_a_reign_ends_by_itself_unless_the_lock_is_held(reigns: list[Reign]) -> None:
    clock = ManualClock()
    office = Office(clock)
    with office.held(reigns[0], 5.0):
        clock.advance(4.9)
        assert office.reign() is reigns[0]
        office.extend(9.0)
        clock.advance(4.0)
        assert office.reign() is reigns[0]
        clock.advance(0.2)
        with pytest.raises(Unavailable, match="standby"):
            office.reign()


def test_what_began_in_one_reign_does_not_go_on_in_the_next(reigns: list[Reign]) -> None:
    office = Office(ManualClock())
    with office.held(reigns[0], 5.0):
        office.require(reigns[0])
    with pytest.raises(Unavailable):
        office.require(reigns[0])
    with office.held(reigns[1], 5.0), pytest.raises(Unavailable):
        office.require(reigns[0])


def test_watchers_are_woken_when_a_reign_ends(reigns: list[Reign]) -> None:
    told: list[bool] = []
    office = Office(ManualClock())
    with reigns[0].fleet.watched(lambda: told.append(True)):
        with office.held(reigns[0], 5.0):
            pass
        assert told == [True]
