"""The C loops beside this file: compiled once for this processor, called on tensors' memory."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

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
    "-shared",
    "-fPIC",
)


@cache
def library() -> ctypes.CDLL | None:
    """None where it cannot be compiled or loaded: the reference then does the work, slowly.

    torch is loaded already, so both share one OpenMP library and one set of threads.
    """
    assert torch.get_num_threads()
    try:
        found = ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        log.warning("there are no native kernels: %s %s", error, said.decode()[-500:])
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


def _compiled() -> Path:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise OSError("there is no C compiler (set CC)")
    sources = sorted(FOLDER.glob("*.c"))
    key = hashlib.sha256(b"".join(p.read_bytes() for p in [*sources, *sorted(FOLDER.glob("*.h"))]))
    key.update(f"{compiler} {FLAGS} {platform.machine()} {_processor()}".encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorikeet"
    path = folder / f"cpu-{key.hexdigest()[:16]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / path.name
            command = [compiler, *FLAGS, "-o", str(made), *map(str, sources), "-lm"]
            subprocess.run(command, check=True, capture_output=True)
            made.replace(path)
    return path


def _processor() -> str:
    """What -march=native depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else ()
    return next((line for line in lines if line.startswith("flags")), platform.processor())
