"""A member of a group that follows its leader: it computes what it is told, and samples nothing."""

from multiprocessing.connection import Connection

import torch

from services.core.types import Digest
from services.gpu_worker.model.adapters import AdapterWeights
from services.gpu_worker.model.llama import Llama
from services.gpu_worker.model.packing import Packing
from services.gpu_worker.model.parallel.lines import Line
from services.gpu_worker.model.parallel.messages import Begin, Bound, Read, Step, Write
from services.gpu_worker.model.runner import TorchRunner


class Follower:
    """Each of its methods is for a thread of its own, and returns once the leader has hung up."""

    def __init__(self, network: Llama, line: Line, *, page_tokens: int) -> None:
        """Waits for the leader to begin."""
        begin = line.steps.recv()
        assert isinstance(begin, Begin)
        self._line = line
        self._runner = TorchRunner(network, pages=begin.pages, page_tokens=page_tokens)

    @torch.inference_mode()
    def follow(self) -> None:
        while (step := _next(self._line.steps)) is not None:
            assert isinstance(step, Step)
            for change in step.changes:
                self._change(change)
            self._runner.compute(step.numbers)

    def keep_pages(self) -> None:
        memory = self._runner.memory
        while (asked := _next(self._line.pages)) is not None:
            if isinstance(asked, Write):
                memory.write(asked.pages, self._line.pages.recv_bytes())
                self._line.pages.send(True)
            else:
                assert isinstance(asked, Read)
                self._line.pages.send_bytes(memory.read(asked.pages))

    def _change(self, change: Bound | Digest) -> None:
        if not isinstance(change, Bound):
            self._runner.unbind(change)
            return
        weights = AdapterWeights(Packing(torch.empty(0), change.layout))  # in the pages already
        self._runner.bind(change.adapter, weights, change.pages)


def _next(line: Connection) -> object:
    try:
        return line.recv()
    except (EOFError, ConnectionResetError):
        return None
