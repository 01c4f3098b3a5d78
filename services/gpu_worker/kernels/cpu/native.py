"""The C loops beside this file: compiled once for this processor, called on tensors' memory."""

import ctypes
import logging
import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from services.core.native import compiled

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
# -ffast-math as a whole would change how the process treats denormal numbers.
FLAGS = (
    "-O3",
    "-march=native",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
)


@cache
def library() -> ctypes.CDLL | None:
    """None where it cannot be compiled or loaded: the reference then does the work, slowly.

    torch is loaded already, so both share one OpenMP library and one set of threads.
    """
    assert torch.get_num_threads()
    try:
        found = ctypes.CDLL(str(compiled("cpu", FOLDER, FLAGS, _processor())))
    except OSError as error:
        log.warning("there are no native kernels: %s", error)
        return None
    found.lorikeet_keep_freed_memory()
    return found


def huge(memory: Tensor) -> Tensor:
    """The same memory, in huge pages where the system has them. To be called before it is used."""
    native = library()
    if native is not None:
        native.lorikeet_use_huge_pages(
            ctypes.c_void_p(memory.data_ptr()), ctypes.c_int64(memory.nbytes)
        )
    return memory


def _processor() -> str:
    """What -march=native depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else ()
    return next((line for line in lines if line.startswith("flags")), platform.processor())
