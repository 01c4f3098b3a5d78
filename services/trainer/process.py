"""A training process as the trainer sees it."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.trainer.task import FederatedTask, News, Task, news_from_json

COMMAND = (sys.executable, "-m", "services.trainer.training")
FEDERATED_COMMAND = (sys.executable, "-m", "services.trainer.flower_driver")
LONGEST_LINE = 1 << 20


class TrainingProcess:
    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def news(self, *, silent_seconds: float) -> AsyncIterator[News]:
        """To its end, or until nothing is heard of it for so long."""
        assert self._process.stdout is not None
        while True:
            try:
                async with asyncio.timeout(silent_seconds):
                    line = await self._process.stdout.readline()
            except TimeoutError:
                return
            if not line.endswith(b"\n"):  # it ended, perhaps within a line
                await self._process.wait()
                return
            yield news_from_json(line)


@asynccontextmanager
async def training(
    task: Task | FederatedTask, command: Sequence[str] = COMMAND
) -> AsyncIterator[TrainingProcess]:
    """`command` takes a task and tells news as services.trainer.training does. The process and
    what it started are gone with the block, and with this one."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it has ended, which its news will say
            process.stdin.write(task.to_json().encode() + b"\n")
            await process.stdin.drain()
        yield TrainingProcess(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
