"""A group as its leader, the worker, has it: child processes, one for each other member."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from pathlib import Path

import structlog
import torch

from services.core.errors import FailedPrecondition
from services.gpu_worker.kernels.device import Device
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.parallel.collectives import Collectives, join
from services.gpu_worker.model.parallel.factors import GroupUnpacker
from services.gpu_worker.model.parallel.lines import Line, Lines
from services.gpu_worker.model.parallel.member import Member, Partition
from services.gpu_worker.model.parallel.messages import Setup
from services.gpu_worker.model.parallel.part import builder, unpacker
from services.gpu_worker.model.parallel.runner import GroupRunner
from services.runtime.telemetry import LogFormat

log = structlog.get_logger()

EXIT_MEMBER_LOST = 71
END_SECONDS = 5.0
MODULE = "services.gpu_worker.model.parallel.follower_process"


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """`threads`: of each member."""

    members: int
    partition: Partition
    model: Path
    device: str
    dtype: str
    threads: int
    page_tokens: int
    log_format: LogFormat = LogFormat.JSON
    log_level: str = "info"


class Group:
    """A member that ends, however it does, ends the worker at once: what ran goes on elsewhere."""

    def __init__(self, options: GroupOptions) -> None:
        """Starts the other members, which live as long as the calling thread at most."""
        self._options = options
        self._ending = False
        self._folder = tempfile.TemporaryDirectory(prefix="lorikeet-group-")
        self._meeting = Path(self._folder.name) / "meeting"
        started = [_start(number, options) for number in Member(0, options.members).others()]
        self.processes = [process for process, _ in started]
        lines = [line for _, line in started]
        self._lines = Lines(lines)
        for number, process in enumerate(self.processes, 1):
            watch = threading.Thread(target=self._watch, args=[number, process], daemon=True)
            watch.start()
        for number, line in enumerate(lines, 1):
            line.steps.send(self._setup(Member(number, options.members)))
        self.collectives: Collectives | None = None

    def load(self, device: Device, name: str | None) -> tuple[LoadedModel, int]:
        """The leader's part, once all have theirs; and how many bytes each can spare for pages.
        Raises FailedPrecondition."""
        on_cuda = device.place.type == "cuda"
        if on_cuda and torch.cuda.device_count() < self._options.members:
            raise FailedPrecondition(
                f"GPU_WORKER_TENSOR_PARALLEL={self._options.members} needs as many CUDA devices; "
                f"torch finds {torch.cuda.device_count()}"
            )
        self.collectives = join(Member(0, self._options.members), self._meeting, on_cuda=on_cuda)
        build = builder(self.collectives, self._options.partition)
        model = load_model(self._options.model, name=name, device=device, build=build)
        spare = min([device.spare_memory(), *(each.spare_bytes for each in self._lines.ready())])
        self._folder.cleanup()
        return model, spare if on_cuda else spare // self._options.members  # of one machine

    def unpacker(self, model: LoadedModel) -> GroupUnpacker:
        """Of adapters for `load`'s model."""
        options = self._options
        return unpacker(
            model,
            page_tokens=options.page_tokens,
            members=options.members,
            partition=options.partition,
        )

    @property
    def runner(self) -> partial[GroupRunner]:
        """For build_engine."""
        return partial(GroupRunner, lines=self._lines)

    def close(self) -> None:
        """Without the worker."""
        self._ending = True
        self._folder.cleanup()
        self._lines.close()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            process.kill()
            process.wait()

    def _setup(self, member: Member) -> Setup:
        options = self._options
        return Setup(
            member,
            self._meeting,
            options.model,
            options.device,
            options.dtype,
            options.threads,
            options.page_tokens,
            options.partition,
        )

    def _watch(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """In a thread of its own: the others wait for the lost member, perhaps for ever."""
        code = process.wait()
        if not self._ending:
            log.critical("group_member_lost", member=number, of=self._options.members, code=code)
            os._exit(EXIT_MEMBER_LOST)


def _start(number: int, options: GroupOptions) -> tuple[subprocess.Popen[bytes], Line]:
    (steps, their_steps), (pages, their_pages) = Pipe(), Pipe()
    theirs = their_steps.fileno(), their_pages.fileno()
    arguments = [*map(str, theirs), options.log_format.value, options.log_level]
    with their_steps, their_pages:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, *arguments],
            pass_fds=theirs,
            env=os.environ | _only_device(number),
            stdin=subprocess.DEVNULL,
        )
    return process, Line(steps, pages)


def _only_device(number: int) -> dict[str, str]:
    """Each member sees one CUDA device, which so is everybody's first."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices: Sequence[str] = seen.split(",") if seen else [str(each) for each in range(number + 1)]
    return {"CUDA_VISIBLE_DEVICES": devices[number]} if number < len(devices) else {}
