"""Work beside other work, and its end."""

import asyncio

import pytest

from services.runtime.beside import beside, cancelled


class Work:
    """Gives something back when it is cancelled, which takes a while."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.cancels = 0
        self.has_ended = False

    async def run(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await self._count_cancels()
            self.has_ended = True

    async def _count_cancels(self) -> None:
        while True:
            self.cancels += 1
            try:
                await self.may_end.wait()
                return
            except asyncio.CancelledError:
                continue


async def test_who_is_cancelled_again_while_it_ends_others_cancels_them_once() -> None:
    work = Work()
    task = asyncio.create_task(work.run())
    await work.begun.wait()
    ending = asyncio.create_task(cancelled([task]))
    for _ in range(3):
        await asyncio.sleep(0)
        ending.cancel()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert (work.cancels, work.has_ended) == (1, True)


async def test_work_has_ended_with_its_block() -> None:
    work = Work()
    work.may_end.set()
    async with beside(work.run()):
        await work.begun.wait()
    assert (work.cancels, work.has_ended) == (1, True)
    async with beside():
        pass
