"""Which device a worker runs on."""

import torch

from services.core.errors import FailedPrecondition
from services.gpu_worker.kernels.cpu.device import CpuDevice
from services.gpu_worker.kernels.device import Device
from services.gpu_worker.kernels.rounding import Kind


def open_device(kind: str = "auto", dtype: str = "auto", weights: Kind = "float32") -> Device:
    """`kind`: auto, cpu or cuda; `dtype`: auto, float32, float16 or bfloat16; `weights`: of the
    base model, if they are not of that.

    Raises FailedPrecondition for what is not there.
    """
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        if dtype not in ("auto", "float32"):
            raise FailedPrecondition(f"a CPU worker computes in float32, not {dtype}")
        return CpuDevice(weights)
    if not torch.cuda.is_available():
        raise FailedPrecondition("torch finds no CUDA device here")
    if weights == "int8-dynamic":
        raise FailedPrecondition("a CUDA worker rounds no inputs: its weights may be int8")
    # Triton is at hand only where a GPU is.
    from services.gpu_worker.kernels.cuda.device import CudaDevice  # noqa: PLC0415

    names = {"float32": torch.float32, "float16": torch.float16}
    precision = names.get(dtype, torch.bfloat16)
    return CudaDevice(torch.device("cuda"), precision, weights=weights)
