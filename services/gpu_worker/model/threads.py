"""Which threads of a worker compute, and with how many helpers."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

SIDE_THREADS = 4
SIDE_NICENESS = 5  # a third of the weight of the engine's thread


def engine_thread(helpers: int) -> ThreadPoolExecutor:
    """One thread for the engine, with so many processors for its products.

    Load the model and build the engine in it. Every thread that multiplies, or only fills a large
    tensor, keeps OpenMP helpers of its own, and once they are more than the processors OpenMP puts
    them all to sleep between products, which wakes them late: a tenth of every step.
    """
    return ThreadPoolExecutor(1, "engine", initializer=_compute_with, initargs=(helpers,))


def side_threads() -> ThreadPoolExecutor:
    """For what happens beside the steps, as when adapters are read: no helpers, less weight."""
    return ThreadPoolExecutor(SIDE_THREADS, "side", initializer=_step_back)


def _compute_with(processors: int) -> None:
    torch.set_num_threads(processors)
    torch.get_num_threads()  # keeps it: until a thread has asked, it gets what any other sets


def _step_back() -> None:
    _compute_with(1)
    if sys.platform == "linux":  # elsewhere niceness is the whole process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), SIDE_NICENESS)
