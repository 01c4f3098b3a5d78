"""Flower's programs as our children: their logs, and their end."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.core.errors import Unavailable

LOG_TAIL_LINES = 12
STOP_SECONDS = 5.0
LOOK_SECONDS = 0.1


class Child:
    """`apart`: it has a process group of its own, so that what it starts ends with it; else all of
    it ends with the group of this process."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        apart: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._apart = apart
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                process_group=0 if apart else None,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def until(self, true: Callable[[], bool], *, seconds: float) -> None:
        """Raises Unavailable if it ends before, or it takes longer."""
        deadline = time.monotonic() + seconds
        while not true():
            if not self.is_alive:
                raise Unavailable(self.post_mortem())
            if time.monotonic() > deadline:
                raise Unavailable(f"{self.name} was not ready in {seconds:g} s; {self.tail()}")
            time.sleep(LOOK_SECONDS)

    def post_mortem(self) -> str:
        return f"{self.name} ended with code {self.returncode}; {self.tail()}"

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(["its log ends with:", *lines])

    def has_started(self, program: str) -> bool:
        """Whether a program by that name runs in its group; it is apart."""
        return any(
            group == self.pid and program in command for group, command in _running_commands()
        )

    def kill(self) -> None:
        """At once."""
        with contextlib.suppress(ProcessLookupError):
            if self._apart:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """It may say goodbye."""
        if self.is_alive:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.kill()


@contextmanager
def child(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    apart: bool = False,
) -> Iterator[Child]:
    """Gone with the block."""
    process = Child(name, command, environment=environment, log=log, apart=apart)
    try:
        yield process
    finally:
        process.stop()


def _running_commands() -> Iterator[tuple[int, str]]:
    """Of this machine, with their groups."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
            yield os.getpgid(int(folder.name)), command
