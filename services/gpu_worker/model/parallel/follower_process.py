"""The child process of a worker that is one member of its group.

Takes the numbers of its two lines and what its logs look like as arguments. Ends when the leader
hangs up or dies, whatever it is doing.
"""

import ctypes
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection

import structlog
import torch

from services.core.errors import ServingError
from services.gpu_worker.kernels.choice import open_device
from services.gpu_worker.model.loading import LoadedModel, load_model
from services.gpu_worker.model.parallel.collectives import join
from services.gpu_worker.model.parallel.follower import Follower
from services.gpu_worker.model.parallel.lines import Line
from services.gpu_worker.model.parallel.messages import Ready, Refused, Setup
from services.gpu_worker.model.parallel.part import builder
from services.runtime import telemetry

log = structlog.get_logger()

PR_SET_PDEATHSIG = 1


def main(line: Line) -> None:
    setup = line.steps.recv()
    assert isinstance(setup, Setup)
    structlog.contextvars.bind_contextvars(member=setup.member.number)
    try:
        model, spare = _loaded(setup)
    except Exception as error:
        if not isinstance(error, ServingError):  # that, the leader says
            log.exception("group_member_broke")
        line.steps.send(Refused(str(error)))
        line.steps.poll(None)  # until the leader hangs up
        return
    line.steps.send(Ready(spare))
    follower = Follower(model.network, line, page_tokens=setup.page_tokens)
    threading.Thread(target=_keep_pages, args=[follower], daemon=True).start()
    follower.follow()


def _loaded(setup: Setup) -> tuple[LoadedModel, int]:
    torch.set_num_threads(setup.threads)
    device = open_device(setup.device, setup.dtype)
    collectives = join(setup.member, setup.meeting, on_cuda=device.place.type == "cuda")
    build = builder(collectives, setup.partition)
    model = load_model(setup.model, device=device, build=build)
    return model, device.spare_memory()


def _keep_pages(follower: Follower) -> None:
    """A member that waits for others in a step does not notice that its leader is gone: this does,
    and so ends the process."""
    try:
        follower.keep_pages()
    except Exception:
        log.exception("group_member_broke")
        os._exit(1)
    os._exit(0)


def _end_with_the_leader() -> None:
    """Even if stopped; elsewhere than on Linux it has to notice."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    _end_with_the_leader()
    steps, pages, log_format, level = sys.argv[1:]
    telemetry.setup("gpu_worker", log_format=telemetry.LogFormat(log_format), level=level)
    main(Line(Connection(int(steps)), Connection(int(pages))))
