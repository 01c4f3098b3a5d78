"""Which device a worker runs on."""

import torch

from services.core.errors import FailedPrecondition
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.device import Device


def open_device(kind: str = "auto", dtype: str = "auto") -> Device:
    """`kind`: auto, cpu or cuda; `dtype`: auto, float32, float16 or bfloat16.

    Raises FailedPrecondition for what is not there.
    """
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        if dtype not in ("auto", "float32"):
            raise FailedPrecondition(f"a CPU worker computes in float32, not {dtype}")
        return CpuDevice()
    if not torch.cuda.is_available():
        raise FailedPrecondition("torch finds no CUDA device here")
    # Triton is at hand only where a GPU is.
    from services.gpu_worker.kernels.cuda.device import CudaDevice  # noqa: PLC0415

    names = {"float32": torch.float32, "float16": torch.float16}
    return CudaDevice(torch.device("cuda"), names.get(dtype, torch.bfloat16))
