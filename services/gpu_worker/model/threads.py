"""Which threads of a worker compute, and with how many helpers."""

import ctypes
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from services.gpu_worker.kernels.cpu import native

SWITCH_SECONDS = 0.0005  # after which others give the interpreter's lock to the engine's thread
SIDE_THREADS = 4
SIDE_NICENESS = 5  # a third of the weight of the engine's thread


def processors() -> list[int]:
    """Those that this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def engine_thread(helpers: int = 0) -> ThreadPoolExecutor:
    """One thread for the engine, with so many processors for its products; 0: with all.

    Load the model and build the engine in it. Every thread that multiplies, or only fills a large
    tensor, keeps OpenMP helpers of its own, and once they are more than the processors OpenMP puts
    them all to sleep between products, which wakes them late: a tenth of every step. It asks for
    the interpreter's lock again after every product, and from now on gets it soon.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    return ThreadPoolExecutor(
        1, "engine", initializer=_compute_with, initargs=(helpers or len(processors()),)
    )


def keep_apart() -> None:
    """Let the calling thread and each of its helpers stay on a processor of its own.

    Only if they have them all, and only where they do the work. The system moves threads about,
    and may leave two of a team on one processor for a whole step, taking turns: above all when
    something that only takes what is left, as what fetches adapters, keeps the other busy.
    """
    usable, library = processors(), native.library()
    if library is not None and torch.get_num_threads() == len(usable):
        library.lorikeet_keep_apart((ctypes.c_int32 * len(usable))(*usable), len(usable))


def side_threads() -> ThreadPoolExecutor:
    """For what happens beside the steps, as copies to pages: no helpers, less weight."""
    return ThreadPoolExecutor(SIDE_THREADS, "side", initializer=_step_back)


def _compute_with(processors: int) -> None:
    torch.set_num_threads(processors)
    torch.get_num_threads()  # keeps it: until a thread has asked, it gets what any other sets


def _step_back() -> None:
    _compute_with(1)
    if sys.platform == "linux":  # elsewhere niceness is the whole process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), SIDE_NICENESS)
