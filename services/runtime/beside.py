"""Work that goes on beside a server for as long as it runs, and work that goes on to its end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

log = structlog.get_logger()


@asynccontextmanager
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Cancelled at the end. What breaks before is logged, and the rest goes on."""
    tasks = [asyncio.create_task(each) for each in work]
    for task in tasks:
        task.add_done_callback(_tell)
    try:
        yield
    finally:
        await cancelled(tasks)


async def cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Returns once they have ended. They are cancelled once, however often their caller is: who is
    cancelled again while it gives a connection to the database back never ends."""
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    ended = asyncio.ensure_future(asyncio.wait(tasks))
    also: asyncio.CancelledError | None = None
    while not ended.done():
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError as error:
            also = error
    if also is not None:
        raise also


async def to_their_ends(*work: Callable[[], object]) -> list[Any]:
    """Each in a thread, to its end also if the caller is gone; raises the first one's error."""
    tasks = [asyncio.create_task(asyncio.to_thread(each)) for each in work]
    try:
        await asyncio.shield(asyncio.wait(tasks))
    finally:
        await asyncio.wait(tasks)
    return [task.result() for task in tasks]


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("work_beside_broke", exc_info=task.exception())
