"""The leader's lines to those who follow: of each member one for steps, and one for pages."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler

from services.core.errors import FailedPrecondition
from services.gpu_worker.model.parallel.messages import Begin, Read, Ready, Refused, Step, Write


@dataclass(frozen=True, slots=True)
class Line:
    """To one member."""

    steps: Connection
    pages: Connection

    def close(self) -> None:
        self.steps.close()
        self.pages.close()


class Lines:
    """Raises OSError where a member is gone: the worker cannot live on."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._paging = threading.Lock()

    def __len__(self) -> int:
        return len(self._lines)

    def ready(self) -> list[Ready]:
        """Waits for everybody. Raises FailedPrecondition with what one says that cannot begin."""
        answers = [line.steps.recv() for line in self._lines]
        for number, answer in enumerate(answers, 1):
            if isinstance(answer, Refused):
                raise FailedPrecondition(f"process {number} of the group: {answer.reason}")
        return answers

    def begin(self, pages: int) -> None:
        self._send(Begin(pages))

    def step(self, step: Step) -> None:
        """In the engine's thread."""
        self._send(step)

    @contextmanager
    def writing(self, pages: Sequence[int], data: Sequence[bytes]) -> Iterator[None]:
        """Of each member its own; at the end of the block it is there. In any thread."""
        with self._paging:
            for line, each in zip(self._lines, data, strict=True):
                line.pages.send(Write(tuple(pages)))
                line.pages.send_bytes(each)
            try:
                yield
            finally:
                for line in self._lines:
                    line.pages.recv()

    def read(self, pages: Sequence[int]) -> list[bytes]:
        """Of each member its own. In any thread."""
        with self._paging:
            for line in self._lines:
                line.pages.send(Read(tuple(pages)))
            return [line.pages.recv_bytes() for line in self._lines]

    def close(self) -> None:
        for line in self._lines:
            line.close()

    def _send(self, message: Begin | Step) -> None:
        data = ForkingPickler.dumps(message)
        for line in self._lines:
            line.steps.send_bytes(data)
